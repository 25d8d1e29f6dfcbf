-- When images of a study were last read, to the hour; written in batches, beside the requests (ADR 0039).
CREATE TABLE dicomweb.study_access (
    study_instance_uid text PRIMARY KEY REFERENCES dicomweb.study ON DELETE CASCADE,
    accessed_at        timestamptz NOT NULL
);
