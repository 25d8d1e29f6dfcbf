"""Statements of bulk export: segments of a type's versions as NDJSON, straight from the table (ADR 0019).

A version is known for ever by (updated, row): it keeps that key when a newer one moves it to `history`. So the versions
that were current at a moment T, cut into ranges of that key, are the same whenever a range is read, and each is in
exactly one range; what happens after T, a restart included, changes nothing.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from fhir_server.search.conditions import InInstitution, Selection
from fhir_server.store import institutions
from fhir_server.store.query import SelectionQuery, Statement
from fhir_server.store.sealed_content import MARKER, opened_line
from foramen.kernel.errors import InvalidRequestError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_ROW, _MOST_ROW = -(2**63), 2**63 - 1
_BUNDLE_SIZE = 1000
QUOTE = b"\x01"
"""Cannot occur in JSON. COPY writes it around a value only when that holds a raw line break (`bulk/files.py`)."""
_DELIMITER = "\x02"
_LINE = re.compile(rb"\x01[^\x01]*+\x01\n|[^\n]*+\n")
Key = tuple[int, int]
"""(updated in microseconds since 1970, row)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is exported of one type.

    Parameters
    ----------
    patients : only versions in the compartment of one of these Patients (keys); None: of all and of none
    members : the same as a selection, which finds the newest versions by the index
    in_any_record : only versions in the compartment of some Patient
    filters : only resources that one of these selections finds now (they hold `members` too); empty: all
    institution : what the patients of an older version must fulfil; None: nothing. Of the newest the filters say it
    about : only resources that refer, by one of the paths of `links`, to one that these find
    """

    resource_type: str
    patients: tuple[int, ...] | None = None
    members: Selection | None = None
    in_any_record: bool = False
    filters: tuple[Selection, ...] = ()
    about: tuple[Wanted, ...] = ()
    links: tuple[int, ...] = ()
    institution: InInstitution | None = None


def micros(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """Aware UTC time of some microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=value)


def before(at: int) -> Key:
    """Return the key before all versions written after this moment."""
    return at, _MOST_ROW


async def clock(connection: Any) -> tuple[int, int]:
    """Return the database's time, and the time before which every write is visible (microseconds).

    The second is when the oldest transaction began that still runs, or now when there is none.
    """
    record = await connection.fetchrow(
        "SELECT clock_timestamp() AS now, (SELECT min(xact_start) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend') AS open"
    )
    now = micros(record["now"])
    return now, min(now, micros(record["open"])) if record["open"] is not None else now


async def newest_transaction(connection: Any) -> int:
    """Return a transaction id that every transaction which runs now is below."""
    return int(await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))


async def are_finished(connection: Any, transaction: int) -> bool:
    """Whether every transaction below this id has been committed or given up."""
    return int(await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")) >= transaction


class _Parts:
    """Clauses of one statement over `r` (the resource) and, for older versions, `h` (its history)."""

    def __init__(self, wanted: Wanted) -> None:
        self.statement = Statement()
        self._wanted = wanted
        self._type = self.statement.value(wanted.resource_type, "text")

    def key(self, alias: str, after: Key, upto: Key) -> str:
        """Clause: the version's key lies in (after, upto]."""
        low = f"({self._moment(after[0])}, {self.statement.value(after[1], 'bigint')})"
        high = f"({self._moment(upto[0])}, {self.statement.value(upto[1], 'bigint')})"
        key = f"({alias}.updated, {alias}.row)"
        return f"{alias}.type = {self._type} AND {key} > {low} AND {key} <= {high}"

    def _moment(self, at: int) -> str:
        return self.statement.value(moment(at), "timestamptz")

    def scope(self, alias: str) -> str:
        """Clauses: compartment, filters and links; the last two know the newest version only."""
        wanted, clauses = self._wanted, []
        if wanted.in_any_record:
            clauses.append(f"cardinality({alias}.patients) > 0")
        if alias == "h" and wanted.patients is not None:
            clauses.append(self.in_records(alias))
        if alias == "h" and wanted.institution is not None:
            clauses.append(institutions.patients_clause(wanted.institution, "h.patients", self.statement.value, "_h"))
        selections = wanted.filters or ((wanted.members,) if alias == "r" and wanted.members is not None else ())
        if selections:
            clauses.append(f"r.row IN ({self._found(selections)})")
        if wanted.about:
            clauses.append(f"r.row IN ({' UNION '.join(map(self._linked, wanted.about))})")
        return "".join(f" AND {clause}" for clause in clauses)

    def in_records(self, alias: str) -> str:
        """Clause: the version belongs to one of the patients."""
        keys = self.statement.value(list(self._wanted.patients or ()), "bigint[]")
        return f"EXISTS (SELECT FROM unnest({alias}.patients) AS o(p) WHERE o.p = ANY({keys}))"

    def _found(self, selections: Sequence[Selection]) -> str:
        found = []
        for selection in selections:
            query = SelectionQuery(selection, self.statement)
            found.append(f"SELECT {query.driver}.row {query.text()}")
        return " UNION ".join(found)

    def _linked(self, target: Wanted) -> str:
        """Rows of what refers to resources of another type that are exported too."""
        alias, link = self.statement.alias("t"), self.statement.alias("k")
        bases = self.statement.value(list(self._wanted.links), "bigint[]")
        selections = target.filters or ((target.members,) if target.members is not None else ())
        only = f" AND {alias}.row IN ({self._found(selections)})" if selections else ""
        only += f" AND cardinality({alias}.patients) > 0" if target.in_any_record else ""
        return (
            f"SELECT {link}.row FROM fhir.resource {alias} CROSS JOIN unnest({bases}) AS b_{alias}(path)"
            f" JOIN fhir.posting {link} ON {link}.hash = b_{alias}.path # {alias}.key"
            f" WHERE {alias}.type = {self.statement.value(target.resource_type, 'text')}"
            f" AND {alias}.content IS NOT NULL{only}"
        )

    def replaced(self, at: int, after: Key, upto: Key) -> str:
        """FROM and WHERE of the versions that were current at a moment and have been replaced since."""
        time = self._moment(at)
        return (
            f"FROM fhir.resource r JOIN fhir.history h ON h.row = r.row WHERE r.type = {self._type}"
            f" AND r.updated > {time} AND {self.key('h', after, upto)}"
            f" AND NOT EXISTS (SELECT FROM fhir.history n WHERE n.row = h.row AND n.version = h.version + 1"
            f" AND n.updated <= {time})"
        )


async def boundary(connection: Any, wanted: Wanted, after: Key, upto: Key, size: int) -> Key | None:
    """Return the key at which a segment of `size` resources ends, or None when fewer are left."""
    parts = _Parts(wanted)
    record = await connection.fetchrow(
        f"SELECT r.updated, r.row FROM fhir.resource r WHERE {parts.key('r', after, upto)}{parts.scope('r')}"
        f" ORDER BY r.updated, r.row OFFSET {size - 1} LIMIT 1",
        *parts.statement.arguments,
    )
    return None if record is None else (micros(record["updated"]), record["row"])


async def copy_segment(
    connection: Any,
    wanted: Wanted,
    at: int,
    after: Key,
    upto: Key,
    output: Callable[[bytes], Awaitable[None]],
) -> None:
    """Write the versions current at `at` whose key lies in (after, upto], one a line.

    Parameters
    ----------
    output : is awaited with each piece of the text; see `QUOTE`

    Raises
    ------
    InvalidRequestError
        A filter's value cannot be used.
    """
    parts = _Parts(wanted)
    text = (
        f"SELECT convert_from(r.content, 'UTF8') FROM fhir.resource r WHERE {parts.key('r', after, upto)}"
        f" AND r.content IS NOT NULL{parts.scope('r')}"
        f" UNION ALL SELECT convert_from(h.content, 'UTF8') {parts.replaced(at, after, upto)}"
        f" AND h.content IS NOT NULL{parts.scope('h')}"
    )
    await _copy(connection, text, parts.statement.arguments, output)


async def copy_deletions(
    connection: Any, wanted: Wanted, at: int, since: int, output: Callable[[bytes], Awaitable[None]]
) -> None:
    """Write what was deleted in (since, at] and not written again by then: transaction Bundles, one a line."""
    parts = _Parts(wanted)
    after, upto = before(since), before(at)
    bound = dict.fromkeys("rh", "")
    if wanted.patients is not None:
        bound = {alias: f" AND {parts.in_records(alias)}" for alias in "rh"}
    elif wanted.in_any_record:
        bound = {alias: f" AND cardinality({alias}.patients) > 0" for alias in "rh"}
    text = (
        f'SELECT \'{{"resourceType":"Bundle","type":"transaction","entry":[\' || string_agg('
        f"'{{\"request\":{{\"method\":\"DELETE\",\"url\":\"' || d.type || '/' || d.id || '\"}}}}', ',') || ']}}' FROM ("
        f"SELECT a.type, a.id, (row_number() OVER () - 1) / {_BUNDLE_SIZE} AS place FROM ("
        f"SELECT r.type, r.id FROM fhir.resource r WHERE {parts.key('r', after, upto)}"
        f" AND r.content IS NULL{bound['r']}"
        f" UNION ALL SELECT h.type, h.id {parts.replaced(at, after, upto)}"
        f" AND h.content IS NULL{bound['h']}) a) d GROUP BY d.place"
    )
    await _copy(connection, text, parts.statement.arguments, output)


class _Lines:
    """Opens what is sealed in the lines of a COPY. Pieces end where lines end (asyncpg hands on whole rows)."""

    def __init__(self, output: Callable[[bytes], Awaitable[None]]) -> None:
        self._output = output

    async def __call__(self, piece: bytes) -> None:
        if MARKER in piece:
            # A raw line break stands between quotes only, and belongs to the line.
            piece = b"".join([_opened(line) for line in _LINE.findall(piece)])
        await self._output(piece)


def _opened(line: bytes) -> bytes:
    if MARKER not in line:
        return line
    quoted = line.startswith(QUOTE)
    text = line[1:-2] if quoted else line[:-1]
    found = opened_line(text)
    return QUOTE + found + QUOTE + b"\n" if quoted else found + b"\n"


async def _copy(
    connection: Any, text: str, arguments: Sequence[Any], output: Callable[[bytes], Awaitable[None]]
) -> None:
    try:
        await connection.copy_from_query(
            text,
            *arguments,
            output=_Lines(output),
            format="csv",
            delimiter=_DELIMITER,
            quote=QUOTE.decode(),
            encoding="UTF8",
        )
    except asyncpg.DataError as exc:
        raise InvalidRequestError("A search value of _typeFilter cannot be used", issue_code="value") from exc
