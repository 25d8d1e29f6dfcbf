CREATE TABLE dicomweb.study (
    study_instance_uid text PRIMARY KEY,
    patient_ref        text,
    institution        text,
    state              text NOT NULL DEFAULT 'stored',
    input_hash         text,
    patient_conflict   boolean NOT NULL DEFAULT false,
    attributes         jsonb NOT NULL,
    keys               jsonb NOT NULL,
    updated_at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX study_patient ON dicomweb.study (patient_ref);
CREATE TABLE dicomweb.series (
    study_instance_uid  text NOT NULL REFERENCES dicomweb.study ON DELETE CASCADE,
    series_instance_uid text NOT NULL,
    own_output          boolean NOT NULL,
    attributes          jsonb NOT NULL,
    keys                jsonb NOT NULL,
    PRIMARY KEY (study_instance_uid, series_instance_uid)
);
CREATE INDEX series_uid ON dicomweb.series (series_instance_uid);
CREATE TABLE dicomweb.instance (
    study_instance_uid  text NOT NULL,
    series_instance_uid text NOT NULL,
    sop_instance_uid    text NOT NULL,
    orthanc_id          text NOT NULL,
    instance_number     integer,
    transfer_syntax_uid text NOT NULL,
    frames              integer NOT NULL,
    attributes          jsonb NOT NULL,
    keys                jsonb NOT NULL,
    metadata            bytea NOT NULL,
    PRIMARY KEY (study_instance_uid, series_instance_uid, sop_instance_uid),
    FOREIGN KEY (study_instance_uid, series_instance_uid) REFERENCES dicomweb.series ON DELETE CASCADE
);
CREATE UNIQUE INDEX instance_uid ON dicomweb.instance (sop_instance_uid);
CREATE TABLE dicomweb.arrival (
    study_instance_uid text PRIMARY KEY,
    trace_id           text NOT NULL,
    revision           bigint NOT NULL DEFAULT 1,
    attempts           integer NOT NULL DEFAULT 0,
    due_at             timestamptz NOT NULL DEFAULT now(),
    last_fault         text
);
CREATE INDEX arrival_due ON dicomweb.arrival (due_at);
CREATE TABLE dicomweb.audit_outbox (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event    text NOT NULL,
    attempts integer NOT NULL DEFAULT 0
);
