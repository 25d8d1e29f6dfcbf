"""Tables of the record, as numbered SQL files (`migrations/`) applied once each under an advisory lock.

A step runs as one transaction. One that begins with ``-- outside a transaction`` runs statement by statement (each ends
a line with a semicolon and can be repeated): so `CREATE INDEX CONCURRENTLY IF NOT EXISTS` runs while the server serves.

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

from pathlib import Path
from typing import Any

import psycopg

_LOCK = 0x464F5246  # "FORF": one migration of this schema at a time

FOLDER = Path(__file__).with_name("migrations")
_OUTSIDE = "-- outside a transaction"


def migrate(database_url: str) -> None:
    """Bring the schema `fhir` up to date; safe when several processes start at once."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        try:
            connection.execute("CREATE SCHEMA IF NOT EXISTS fhir")
            connection.execute("CREATE TABLE IF NOT EXISTS fhir.migration (number integer PRIMARY KEY)")
            done = {row[0] for row in connection.execute("SELECT number FROM fhir.migration")}
            for path in sorted(FOLDER.glob("*.sql")):
                number = int(path.name[:4])
                if number not in done:
                    _apply(connection, number, path.read_text(encoding="utf-8"))
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def _apply(connection: psycopg.Connection[Any], number: int, text: str) -> None:
    """Apply one step: as a transaction, or statement by statement where an index is built while the server serves."""
    if text.startswith(_OUTSIDE):
        for statement in text.split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())
        connection.execute("INSERT INTO fhir.migration VALUES (%s)", (number,))
        return
    with connection.transaction():
        connection.execute(text.encode())
        connection.execute("INSERT INTO fhir.migration VALUES (%s)", (number,))
