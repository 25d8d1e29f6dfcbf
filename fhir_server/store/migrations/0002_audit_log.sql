-- Audit records that are durable and not yet indexed: one row for each group that was committed together.
CREATE TABLE fhir.audit_log (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    count integer NOT NULL,
    records bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- Groups that cannot be read: set aside for a person to look at, so that they do not stop the others.
CREATE TABLE fhir.audit_log_damaged (number bigint PRIMARY KEY, at timestamptz NOT NULL, records bytea NOT NULL);
