CREATE TABLE dicomweb.application_entity (
    ae_title        text PRIMARY KEY,
    host            text,
    port            integer,
    institution     text,
    every_institution boolean NOT NULL DEFAULT false,
    rights          text[] NOT NULL,
    any_address     boolean NOT NULL DEFAULT false,
    use_tls         boolean NOT NULL DEFAULT false,
    tls_fingerprint text,
    active          boolean NOT NULL DEFAULT true,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE dicomweb.commitment (
    transaction_uid text NOT NULL,
    ae_title        text NOT NULL,
    items           jsonb NOT NULL,
    requested_at    timestamptz NOT NULL DEFAULT now(),
    due_at          timestamptz NOT NULL DEFAULT now(),
    attempts        integer NOT NULL DEFAULT 0,
    reported_at     timestamptz,
    failed_items    integer,
    last_fault      text,
    PRIMARY KEY (ae_title, transaction_uid)
);
CREATE INDEX commitment_due ON dicomweb.commitment (due_at) WHERE reported_at IS NULL;
CREATE TABLE dicomweb.performed_step (
    sop_instance_uid text PRIMARY KEY,
    ae_title         text NOT NULL,
    status           text NOT NULL,
    attributes       jsonb NOT NULL,
    revision         integer NOT NULL DEFAULT 1,
    recorded         integer NOT NULL DEFAULT 0,
    attempts         integer NOT NULL DEFAULT 0,
    due_at           timestamptz NOT NULL DEFAULT now(),
    last_fault       text
);
CREATE INDEX performed_step_due ON dicomweb.performed_step (due_at) WHERE recorded < revision;
CREATE TABLE dicomweb.forward_rule (
    name        text PRIMARY KEY,
    destination text NOT NULL REFERENCES dicomweb.application_entity ON DELETE CASCADE,
    modalities  text[] NOT NULL DEFAULT '{}',
    body_parts  text[] NOT NULL DEFAULT '{}',
    own_output  boolean NOT NULL DEFAULT false,
    active      boolean NOT NULL DEFAULT true,
    since       timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE dicomweb.forward_job (
    rule_name           text NOT NULL REFERENCES dicomweb.forward_rule ON DELETE CASCADE,
    study_instance_uid  text NOT NULL,
    series_instance_uid text NOT NULL,
    sop_instance_uid    text NOT NULL,
    state               text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'failed')),
    attempts            integer NOT NULL DEFAULT 0,
    due_at              timestamptz NOT NULL DEFAULT now(),
    status              integer,
    last_fault          text,
    sent_at             timestamptz,
    PRIMARY KEY (rule_name, sop_instance_uid)
);
CREATE INDEX forward_job_due ON dicomweb.forward_job (due_at) WHERE state = 'waiting';
CREATE TABLE dicomweb.prefetch_rule (
    name        text PRIMARY KEY,
    source      text NOT NULL REFERENCES dicomweb.application_entity ON DELETE CASCADE,
    modalities  text[] NOT NULL DEFAULT '{}',
    body_parts  text[] NOT NULL DEFAULT '{}',
    years       integer NOT NULL DEFAULT 5 CHECK (years BETWEEN 1 AND 50),
    most        integer NOT NULL DEFAULT 5 CHECK (most BETWEEN 1 AND 100),
    active      boolean NOT NULL DEFAULT true,
    since       timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE dicomweb.prefetch_job (
    rule_name       text NOT NULL REFERENCES dicomweb.prefetch_rule ON DELETE CASCADE,
    trigger         text NOT NULL,
    patient_id      text NOT NULL,
    issuer          text NOT NULL DEFAULT '',
    before_date     text NOT NULL,
    state           text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed')),
    attempts        integer NOT NULL DEFAULT 0,
    due_at          timestamptz NOT NULL DEFAULT now(),
    studies         integer,
    last_fault      text,
    PRIMARY KEY (rule_name, trigger)
);
CREATE INDEX prefetch_job_due ON dicomweb.prefetch_job (due_at) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS study_updated ON dicomweb.study (updated_at);
