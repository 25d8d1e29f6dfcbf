-- One truth of archive, index and record, and what was found out of line (ADR 0041).
ALTER TABLE dicomweb.study
    ADD COLUMN as_stored     jsonb,   -- attributes of the files that the record's patient data are laid over
    ADD COLUMN correction    text,    -- which patient data of the record are laid over, a hash; NULL: none
    ADD COLUMN recorded      text,    -- hash of what we say in the ImagingStudy; NULL: there never was one
    ADD COLUMN imaging_study text COLLATE "C",  -- ImagingStudy/id
    ADD COLUMN compared_at   timestamptz;
CREATE INDEX study_imaging_study ON dicomweb.study (imaging_study);
ALTER TABLE dicomweb.instance ADD COLUMN correction text;
-- Of which file of the archive the row of an instance was made: another one now is a changed header.
CREATE TABLE dicomweb.indexed_file (
    orthanc_id text COLLATE "C" PRIMARY KEY,
    attachment uuid NOT NULL
);
CREATE TABLE dicomweb.drift (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_instance_uid text COLLATE "C" NOT NULL,
    kind               text COLLATE "C" NOT NULL,
    state              text NOT NULL CHECK (state IN ('open', 'mended', 'confirmed', 'resolved')),
    instances          integer NOT NULL DEFAULT 0,
    detail             jsonb NOT NULL DEFAULT '{}',
    found_at           timestamptz NOT NULL DEFAULT now(),
    seen_at            timestamptz NOT NULL DEFAULT now(),
    ended_at           timestamptz,
    decided_by         text,
    trace_id           text NOT NULL
);
CREATE UNIQUE INDEX drift_open ON dicomweb.drift (study_instance_uid, kind) WHERE state = 'open';
CREATE INDEX drift_found ON dicomweb.drift (found_at DESC, id DESC);
CREATE INDEX drift_study ON dicomweb.drift (study_instance_uid);
-- How far each source of changes was followed.
CREATE TABLE dicomweb.followed (
    source   text PRIMARY KEY,
    position text NOT NULL
);
CREATE TABLE dicomweb.comparison (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    phase       text NOT NULL,
    position    text NOT NULL DEFAULT '',
    studies     bigint NOT NULL DEFAULT 0,
    found       jsonb NOT NULL DEFAULT '{}',  -- kind: how many studies
    started_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
