"""Tables of the record, as numbered SQL files (`migrations/`) applied once each under an advisory lock.

A step runs as one transaction. One that begins with ``-- outside a transaction`` runs statement by statement (each ends
a line with a semicolon and can be repeated): so `CREATE INDEX CONCURRENTLY IF NOT EXISTS` runs while the server serves.
A step that waits for a lock holds up everybody who comes after it, so it gives way after `_LOCK_TIMEOUT_MS` and tries
again. https://www.postgresql.org/docs/18/sql-altertable.html, https://www.postgresql.org/docs/18/sql-createindex.html

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

import re
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

_LOCK = 0x464F5246  # "FORF": one migration of this schema at a time

FOLDER = Path(__file__).with_name("migrations")
PATIENCE_S = 600.0
"""Longest a step tries to get its locks, between writers that hold them."""
_OUTSIDE = "-- outside a transaction"
_LOCK_TIMEOUT_MS = 200
_PAUSE_S = 0.5
_TURN_S = 0.05
_INDEX = re.compile(r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\s+(\w+)", re.IGNORECASE)


def migrate(database_url: str) -> None:
    """Bring the schema `fhir` up to date; safe when several processes start at once, and while others serve.

    Raises
    ------
    psycopg.errors.LockNotAvailable
        A step could not get its locks; nothing of it was done.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        _take_turn(connection)
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


def _take_turn(connection: psycopg.Connection[Any]) -> None:
    """Wait for other migrations by asking: who waits inside a statement has a snapshot, and holds up an index build."""
    while True:
        (mine,) = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone() or (False,)
        if mine:
            return
        time.sleep(_TURN_S)


def _apply(connection: psycopg.Connection[Any], number: int, text: str) -> None:
    """Apply one step: as a transaction, or statement by statement where an index is built while the server serves."""
    if text.startswith(_OUTSIDE):
        for statement in text.split(";\n"):
            if statement.strip():
                _drop_unfinished(connection, statement)
                connection.execute(statement.encode())
        connection.execute("INSERT INTO fhir.migration VALUES (%s)", (number,))
        return
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}".encode())
                connection.execute(text.encode())
                connection.execute("INSERT INTO fhir.migration VALUES (%s)", (number,))
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_S)


def _drop_unfinished(connection: psycopg.Connection[Any], statement: str) -> None:
    """Remove what a build that was killed left behind: an index that is not valid, but has the name."""
    for name in _INDEX.findall(statement):
        found = connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (f"fhir.{name}",)
        ).fetchone()
        if found == (False,):
            connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier("fhir", name)))
