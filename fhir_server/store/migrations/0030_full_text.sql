-- Words of resources for _text and _content (search/full_text.py); filled by store/full_text.py when switched on.
CREATE TABLE fhir.full_text (
    row bigint PRIMARY KEY,
    narrative tsvector NOT NULL,
    content tsvector NOT NULL
);
CREATE INDEX full_text_narrative ON fhir.full_text USING gin (narrative);
CREATE INDEX full_text_content ON fhir.full_text USING gin (content);
-- Rows of fhir.resource that changed since; the triggers that fill it exist only while full text is switched on.
CREATE TABLE fhir.full_text_queue (row bigint NOT NULL);
CREATE FUNCTION fhir.full_text_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fhir.full_text_queue SELECT row FROM changed;
    RETURN NULL;
END $$;
