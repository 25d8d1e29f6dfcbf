-- Search parameters added at run time (ADR 0015). The version changes with every change to what is searchable.
CREATE TABLE fhir.registry (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version bigint NOT NULL
);
INSERT INTO fhir.registry (version) VALUES (0);
CREATE TABLE fhir.search_parameter (
    identity text COLLATE "C" PRIMARY KEY,
    logical_id text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('building', 'active', 'removing')),
    definition jsonb NOT NULL,
    job text COLLATE "C"
);
CREATE UNIQUE INDEX search_parameter_in_force ON fhir.search_parameter (logical_id) WHERE state <> 'removing';
