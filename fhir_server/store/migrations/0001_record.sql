-- Tables of the record; their design is told in store/schema.py.
CREATE TABLE fhir.resource (
    row bigint PRIMARY KEY,
    key bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    updated timestamptz NOT NULL,
    method text COLLATE "C" NOT NULL,
    present bigint NOT NULL,
    low bigint NOT NULL,
    high bigint NOT NULL,
    patients bigint[] NOT NULL,
    content bytea
) WITH (fillfactor = 90);
ALTER TABLE fhir.resource ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX resource_key ON fhir.resource (key);
CREATE INDEX resource_updated ON fhir.resource (type, updated, row);

CREATE TABLE fhir.history (
    row bigint NOT NULL,
    version integer NOT NULL,
    type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    updated timestamptz NOT NULL,
    method text COLLATE "C" NOT NULL,
    patients bigint[] NOT NULL,
    content bytea,
    PRIMARY KEY (row, version)
);
ALTER TABLE fhir.history ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX history_updated ON fhir.history (type, updated, row);

CREATE TABLE fhir.posting (
    hash bigint NOT NULL,
    low bigint NOT NULL,
    row bigint NOT NULL,
    high bigint NOT NULL,
    PRIMARY KEY (hash, low, row) INCLUDE (high)
);
CREATE TABLE fhir.date_value (
    path bigint NOT NULL, low bigint NOT NULL, high bigint NOT NULL, row bigint NOT NULL,
    PRIMARY KEY (row, path, low, high)
);
CREATE INDEX date_value_range ON fhir.date_value (path, low, high, row);
CREATE TABLE fhir.string_value (
    path bigint NOT NULL, value text COLLATE "C" NOT NULL, row bigint NOT NULL,
    PRIMARY KEY (row, path, value)
);
CREATE INDEX string_value_prefix ON fhir.string_value (path, value, row);
CREATE TABLE fhir.number_value (
    path bigint NOT NULL, low double precision NOT NULL, high double precision NOT NULL, row bigint NOT NULL,
    PRIMARY KEY (row, path, low, high)
);
CREATE INDEX number_value_range ON fhir.number_value (path, low, high, row);

CREATE SEQUENCE fhir.row_number INCREMENT BY 1000;
CREATE TABLE fhir.setting (name text PRIMARY KEY, value text NOT NULL);
