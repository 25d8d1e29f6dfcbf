-- Legal holds on studies, and the files of the archive that lie in the nearline folder (ADR 0039).
CREATE TABLE dicomweb.legal_hold (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_instance_uid text NOT NULL,
    reason             text NOT NULL,
    placed_by          text NOT NULL,
    placed_at          timestamptz NOT NULL DEFAULT now(),
    released_by        text,
    released_at        timestamptz
);
CREATE UNIQUE INDEX legal_hold_in_force ON dicomweb.legal_hold (study_instance_uid) WHERE released_at IS NULL;
CREATE TABLE dicomweb.nearline_file (
    attachment         text PRIMARY KEY,
    study_instance_uid text NOT NULL,
    size               bigint NOT NULL,
    sha256             bytea NOT NULL,
    moved_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX nearline_study ON dicomweb.nearline_file (study_instance_uid);
