-- The chain of AuditEvents (ADR 0022): lists of what was indexed and not sealed yet, sealed blocks, signed checkpoints.
CREATE TABLE fhir.audit_unsealed (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    algorithm text COLLATE "C" NOT NULL,
    rows bigint[] NOT NULL,
    digests bytea NOT NULL,
    mac bytea NOT NULL,
    refused boolean NOT NULL DEFAULT false
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE TABLE fhir.audit_block (
    number bigint PRIMARY KEY,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('genesis', 'events', 'removal')),
    at timestamptz NOT NULL,
    algorithm text COLLATE "C" NOT NULL,
    count integer NOT NULL,
    rows bigint[],
    digests bytea,
    list_digest bytea NOT NULL,
    note bytea NOT NULL,
    previous bytea NOT NULL,
    digest bytea NOT NULL,
    mac bytea NOT NULL
);
ALTER TABLE fhir.audit_block ALTER COLUMN digests SET STORAGE EXTERNAL;
CREATE TABLE fhir.audit_checkpoint (
    at timestamptz NOT NULL,
    block bigint NOT NULL,
    statement text NOT NULL,
    PRIMARY KEY (at, block)
);
-- Mistakes are stopped here; who may switch triggers off is found by `foramen audit verify`.
-- The condition is looked at before the function is called: writes of other resources pay next to nothing.
CREATE FUNCTION fhir.audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('foramen.audit_removal', true) = 'on' THEN
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_event_kept BEFORE UPDATE OF row, key, type, id, version, updated, method, content ON fhir.resource
    FOR EACH ROW WHEN (OLD.type = 'AuditEvent') EXECUTE FUNCTION fhir.audit_is_append_only();
CREATE TRIGGER audit_event_not_deleted BEFORE DELETE ON fhir.resource
    FOR EACH ROW WHEN (OLD.type = 'AuditEvent') EXECUTE FUNCTION fhir.audit_is_append_only();
CREATE TRIGGER audit_block_kept BEFORE UPDATE OR DELETE ON fhir.audit_block
    FOR EACH ROW EXECUTE FUNCTION fhir.audit_is_append_only();
CREATE TRIGGER audit_checkpoint_kept BEFORE UPDATE OR DELETE ON fhir.audit_checkpoint
    FOR EACH ROW EXECUTE FUNCTION fhir.audit_is_append_only();
