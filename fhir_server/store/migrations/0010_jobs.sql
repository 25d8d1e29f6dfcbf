-- Durable background jobs (ADR 0018). A job is held by one process for as long as it renews its lease.
CREATE TABLE fhir.job (
    id text COLLATE "C" PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
    request bytea NOT NULL,
    state bytea NOT NULL,
    progress text NOT NULL DEFAULT '',
    owner bytea NOT NULL,
    owner_client text NOT NULL,
    owner_subject text NOT NULL,
    issues bytea,
    cancelled boolean NOT NULL DEFAULT false,
    holder text COLLATE "C",
    lease_until timestamptz,
    attempt integer NOT NULL DEFAULT 0,
    fruitless integer NOT NULL DEFAULT 0,
    submitted timestamptz NOT NULL DEFAULT now(),
    finished timestamptz,
    expires timestamptz
);
CREATE INDEX job_open ON fhir.job (kind, submitted) WHERE status IN ('queued', 'running');
CREATE INDEX job_closed ON fhir.job (expires) WHERE status NOT IN ('queued', 'running');
