"""Read versions and histories by key, under the reader's compartment when there is one.

A compartment is the key of a Patient: only versions that belong to it exist for that reader.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fhir_server.search.conditions import InInstitution
from fhir_server.search.hashing import resource_key
from fhir_server.store import institutions
from fhir_server.store.changes import Stored
from fhir_server.store.sealed_content import opened, opened_with_values

_COLUMNS = "row, type, id, version, updated, method, content, patients"
_READ = f"SELECT {_COLUMNS} FROM fhir.resource WHERE key = $1"
_CURRENT = f"SELECT key, {_COLUMNS} FROM fhir.resource WHERE key = ANY($1)"
_LOCK = f"SELECT {_COLUMNS} FROM fhir.resource WHERE key = ANY($1) ORDER BY key FOR UPDATE"
_NEXT_UPDATED = """SELECT n.updated FROM fhir.history n WHERE n.row = v.row AND n.version = v.version + 1
UNION ALL SELECT r.updated FROM fhir.resource r WHERE r.row = v.row AND r.version = v.version + 1"""
_VREAD = f"""
SELECT {_COLUMNS} FROM fhir.resource WHERE key = $1 AND version = $2
UNION ALL
SELECT h.row, h.type, h.id, h.version, h.updated, h.method, h.content, h.patients
FROM fhir.history h JOIN fhir.resource r ON r.row = h.row WHERE r.key = $1 AND h.version = $2
"""


def _stored(record: Any) -> Stored:
    row, resource_type, logical_id, version, updated, method, content, patients = record
    content, sealed = opened_with_values(content, resource_type, logical_id)
    return Stored(row, resource_type, logical_id, version, updated, method, content, tuple(patients), sealed)


async def read(connection: Any, resource_type: str, logical_id: str) -> Stored | None:
    """Return the current version, which may be a deletion."""
    record = await connection.fetchrow(_READ, resource_key(resource_type, logical_id))
    if record is None or record["type"] != resource_type or record["id"] != logical_id:
        return None
    return _stored(record)


async def current(connection: Any, keys: list[int]) -> dict[int, Stored]:
    """Return current versions by key; the caller compares type and id."""
    records = await connection.fetch(_CURRENT, keys)
    return {record[0]: _stored(record[1:]) for record in records}


async def lock(connection: Any, names: list[tuple[str, str]]) -> dict[tuple[str, str], Stored]:
    """Lock current versions against other writers (in key order, so that two writers cannot wait for each other)."""
    keys = sorted({resource_key(*name) for name in names})
    records = await connection.fetch(_LOCK, keys)
    return {(record["type"], record["id"]): _stored(record) for record in records}


async def begin_writing(connection: Any) -> None:
    """Give the open transaction its number, by which an export knows that a write is under way (bulk/export.py)."""
    await connection.execute("SELECT pg_current_xact_id()")


async def before_deletion(connection: Any, rows: list[int]) -> dict[int, bytes]:
    """Return the content that deleted resources had last, by row."""
    records = await connection.fetch(
        "SELECT h.row, h.type, h.id, h.content FROM fhir.history h JOIN fhir.resource r ON r.row = h.row"
        " WHERE r.row = ANY($1) AND h.version = r.version - 1",
        rows,
    )
    return {r["row"]: opened(r["content"], r["type"], r["id"]) or b"" for r in records if r["content"] is not None}


async def vread(connection: Any, resource_type: str, logical_id: str, version: int) -> Stored | None:
    """Return one version."""
    record = await connection.fetchrow(_VREAD, resource_key(resource_type, logical_id), version)
    if record is None or record["type"] != resource_type or record["id"] != logical_id:
        return None
    return _stored(record)


def grouped(bounds: Mapping[str, InInstitution]) -> dict[InInstitution, list[str]]:
    """Return the types of each bound."""
    found: dict[InInstitution, list[str]] = {}
    for name, bound in bounds.items():
        found.setdefault(bound, []).append(name)
    return found


async def history(
    connection: Any,
    *,
    resource_type: str | None,
    logical_id: str | None,
    since: datetime | None,
    until: datetime | None,
    compartment: int | None,
    before: tuple[datetime, int, int] | None,
    limit: int,
    types: list[str] | None = None,
    hidden: Mapping[str, list[int]] | None = None,
    current_from: datetime | None = None,
    contexts: list[str] | None = None,
    institution: Mapping[str, InInstitution] | None = None,
) -> list[Stored]:
    """Return versions, newest first: of one resource, of a type, or of all.

    Parameters
    ----------
    since, until : only versions written at or after, and before
    compartment : key of the Patient whose record bounds the reader, or None
    before : (updated, row, version) of the last version of the page before
    types : for the system history of a reader whose scopes reach only some types
    hidden : type → keys of the patients of whose versions none is returned
    current_from : only versions that were still current at this moment, or written later
    institution : type → what the patients of its versions must fulfil; other types are not bounded
    contexts : a Binary that names something in its securityContext only if that is of one of these types; None: all
    """
    arguments: list[Any] = []

    def value(item: Any, sql_type: str) -> str:
        arguments.append(item)
        return f"${len(arguments)}::{sql_type}"

    where = []
    if logical_id is not None and resource_type is not None:
        key = value(resource_key(resource_type, logical_id), "bigint")
        where.append(f"row = (SELECT k.row FROM fhir.resource k WHERE k.key = {key})")
    if resource_type is not None:
        where.append(f"type = {value(resource_type, 'text')}")
    if types is not None:
        where.append(f"type = ANY({value(types, 'text[]')})")
    if since is not None:
        where.append(f"updated >= {value(since, 'timestamptz')}")
    if until is not None:
        where.append(f"updated < {value(until, 'timestamptz')}")
    if compartment is not None:
        where.append(f"{value(compartment, 'bigint')} = ANY(patients)")
    for name, patients in (hidden or {}).items():
        where.append(f"NOT (type = {value(name, 'text')} AND patients && {value(patients, 'bigint[]')})")
    if contexts is not None:
        where.append(
            "NOT (type = 'Binary' AND cardinality(v.patients) > 0 AND NOT EXISTS (SELECT FROM fhir.resource c"
            f" WHERE c.key = ANY(v.patients) AND c.type = ANY({value(contexts, 'text[]')})))"
        )
    for bound, names in grouped(institution or {}).items():
        inside = institutions.patients_clause(bound, "v.patients", value, f"_{len(arguments)}")
        where.append(f"(type <> ALL({value(names, 'text[]')}) OR {inside})")
    if before is not None:
        moment, row, version = before
        where.append(
            f"(updated, row, version) < ({value(moment, 'timestamptz')}, {value(row, 'bigint')}, "
            f"{value(version, 'integer')})"
        )
    clause = " AND ".join(where) or "true"
    maximum = value(limit, "bigint")
    # What lies in `resource` is current until now; an older version until the next one was written.
    still = f" AND ({_NEXT_UPDATED}) > {value(current_from, 'timestamptz')}" if current_from is not None else ""
    order = f"ORDER BY updated DESC, row DESC, version DESC LIMIT {maximum}"
    now = f"SELECT {_COLUMNS} FROM fhir.resource v WHERE {clause} {order}"
    past = f"SELECT {_COLUMNS} FROM fhir.history v WHERE {clause}{still} {order}"
    records = await connection.fetch(
        f"(SELECT * FROM ({now}) a) UNION ALL (SELECT * FROM ({past}) b)"
        f" ORDER BY updated DESC, row DESC, version DESC LIMIT {maximum}",
        *arguments,
    )
    return [_stored(record) for record in records]
