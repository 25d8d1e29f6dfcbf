-- National identifiers (ADR 0032): the key of their index entries, sealed by a data key; and the systems that are sealed
-- in this record. A system stays one: its entries could not be found any more.
CREATE TABLE fhir.identifier_key (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    digest text COLLATE "C" NOT NULL,
    sealed text COLLATE "C" NOT NULL
);
CREATE TABLE fhir.sealed_system (
    system text COLLATE "C" PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    complete boolean NOT NULL DEFAULT false
);
