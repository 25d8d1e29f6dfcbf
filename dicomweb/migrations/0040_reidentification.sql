-- What stands behind the pseudonyms of a project's images; sealed by the project's own key (ADR 0038).
CREATE TABLE dicomweb.reidentification (
    project   text NOT NULL,
    kind      text NOT NULL CHECK (kind IN ('patient', 'study', 'series', 'instance')),
    pseudonym text NOT NULL,
    sealed    bytea NOT NULL,
    made_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project, kind, pseudonym)
);
