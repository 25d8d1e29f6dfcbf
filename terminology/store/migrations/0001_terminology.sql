-- Imported code systems (ADR 0017). A release gets an id of its own; nothing of it changes once it is committed.

CREATE SEQUENCE terminology.release_number AS integer;

CREATE TABLE terminology.code_system (
    id integer PRIMARY KEY,
    url text NOT NULL,
    version text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    content text NOT NULL,
    concepts integer NOT NULL,
    imported timestamptz NOT NULL DEFAULT now(),
    UNIQUE (url, version)
);

-- `number` is the place in a depth-first walk of the hierarchy: all below a concept are the half-open intervals `reach`
-- (flat: low, high, low, high …), the concept itself included; NULL for a leaf.
CREATE TABLE terminology.concept (
    system integer NOT NULL,
    number integer NOT NULL,
    code text NOT NULL,
    display text NOT NULL,
    active boolean NOT NULL,
    definition text NOT NULL,
    reach integer[],
    parents integer[] NOT NULL,
    children integer[] NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (system, number)
);
CREATE UNIQUE INDEX concept_code ON terminology.concept (system, code);
CREATE INDEX concept_words ON terminology.concept USING gin (words);

CREATE TABLE terminology.designation (
    system integer NOT NULL,
    number integer NOT NULL,
    language text NOT NULL,
    use text NOT NULL,
    value text NOT NULL
);
CREATE INDEX designation_concept ON terminology.designation (system, number);

CREATE TABLE terminology.property (
    system integer NOT NULL,
    number integer NOT NULL,
    name text NOT NULL,
    value text NOT NULL
);
CREATE INDEX property_concept ON terminology.property (system, number);
CREATE INDEX property_value ON terminology.property (system, name, left(value, 100));

CREATE TABLE terminology.value_set (
    system integer NOT NULL,
    url text NOT NULL,
    version text NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (system, url)
);
CREATE INDEX value_set_url ON terminology.value_set (url);
