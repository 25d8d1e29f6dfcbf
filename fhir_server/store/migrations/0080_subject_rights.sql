-- Subject rights (ADR 0028): legal holds, requests to erase a person's record, and records that are closed.
-- None of these tables holds anything of a person but ids, which are random.
CREATE TABLE fhir.legal_hold (
    id text COLLATE "C" PRIMARY KEY,
    key bigint NOT NULL,
    reference text COLLATE "C" NOT NULL,
    patients bigint[] NOT NULL,
    reason text NOT NULL,
    basis text NOT NULL,
    until timestamptz,
    placed timestamptz NOT NULL DEFAULT clock_timestamp(),
    placed_by text NOT NULL,
    released timestamptz,
    released_by text,
    release_reason text
);
CREATE TABLE fhir.erasure (
    id text COLLATE "C" PRIMARY KEY,
    patient text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('requested', 'refused', 'approved', 'held', 'restricted', 'erased',
        'lifted')),
    reason text NOT NULL,
    requested timestamptz NOT NULL DEFAULT clock_timestamp(),
    requested_by text NOT NULL,
    requesters text[] NOT NULL,
    decided timestamptz,
    decided_by text,
    note text,
    job text COLLATE "C",
    finished timestamptz,
    outcome bytea,
    keep_until timestamptz
);
CREATE UNIQUE INDEX erasure_open ON fhir.erasure (patient) WHERE status IN ('requested', 'approved');
CREATE INDEX erasure_patient ON fhir.erasure (patient, requested);
-- What was asked and done is kept for years (PIPL art. 56); mistakes are stopped here.
CREATE FUNCTION fhir.erasure_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.keep_until IS NOT NULL AND OLD.keep_until < clock_timestamp() THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the record of an erasure is kept' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER erasure_kept BEFORE DELETE ON fhir.erasure FOR EACH ROW EXECUTE FUNCTION fhir.erasure_is_kept();
-- Records that are closed: `erasing` while a job removes them, `restricted` while the law keeps them, `erased` after.
-- `binaries` are the keys of Binaries that belong to the record though nothing in them says so.
CREATE TABLE fhir.restriction (
    key bigint PRIMARY KEY,
    patient text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('erasing', 'restricted', 'erased')),
    erasure text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    binaries text[] NOT NULL DEFAULT '{}'
);
