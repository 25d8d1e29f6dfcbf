"""Tables of the record, as numbered SQL steps applied once each under an advisory lock.

Design (ADR 0004 has the reasons):

- `resource` holds the current version, its exact bytes, and nothing else that a query needs to parse. `key` is the hash
  of ``Type/id``, the same hash a reference to it has. `row` is its number for life; the top 10 bits are a bucket made
  from the patient it belonged to when it was created, so every table can be range-partitioned by patient without
  another column, and a patient's rows lie together.
- `history` holds earlier versions (and deletions), moved there by the write that replaces them.
- `posting` is the search index: one entry (hash, low, row, high) for each exact value of a resource, where hash stands
  for type, path and value, and [low, high) is the resource's main date in microseconds. Equality, paging and
  "newest first" are one index range; a conjunction is a join on (low, row). A reference's hash is path XOR key of the
  target, so SQL follows a chain without a link table.
- `date_value`, `string_value`, `number_value` hold what is compared by range: other dates, normalised strings,
  numbers and quantities.

All foreign links are by `row`; nothing cascades. `index_version` tells which registry the index was built with.
"""

from __future__ import annotations

import psycopg

_LOCK = 0x464F5246  # "FORF": one migration of this schema at a time

MIGRATIONS = (
    """
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
    """,
)


def migrate(database_url: str) -> None:
    """Bring the schema `fhir` up to date; safe when several processes start at once."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        try:
            connection.execute("CREATE SCHEMA IF NOT EXISTS fhir")
            connection.execute("CREATE TABLE IF NOT EXISTS fhir.migration (number integer PRIMARY KEY)")
            row = connection.execute("SELECT coalesce(max(number), 0) FROM fhir.migration").fetchone()
            done = int(row[0]) if row else 0
            for number, statements in enumerate(MIGRATIONS, start=1):
                if number > done:
                    with connection.transaction():
                        connection.execute(statements)
                        connection.execute("INSERT INTO fhir.migration VALUES (%s)", (number,))
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
