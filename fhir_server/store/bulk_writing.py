"""New resources in bulk: rows packed for COPY in the order of the indexes, so that their pages are met one by one.

Packing is pure and may happen in another process, before the moment of the write is known: MOMENT stands for it.
Format: https://www.postgresql.org/docs/18/sql-copy.html (Binary Format). Measured against INSERT of arrays: ADR 0018.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BytesIO
from struct import Struct, pack
from typing import Any

from fhir_server.model.resource import instant
from fhir_server.store.changes import Change
from fhir_server.store.sealed_content import sealed

MOMENT = "\x01" * 24
"""Stands for `meta.lastUpdated` in the content: no JSON holds these characters raw, so it can be found again."""
_MARK = MOMENT.encode()
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_END = b"\xff\xff"
_RESOURCE = (
    "updated",
    "row",
    "key",
    "version",
    "present",
    "low",
    "high",
    "type",
    "id",
    "method",
    "patients",
    "content",
)
_POSTING = ("hash", "low", "row", "high")
_RANGE = ("path", "low", "high", "row")
_STRING = ("path", "value", "row")
_INT8 = 20  # OID of bigint, the type of the elements of `patients`.
_NO_KEYS = pack(">iiii", 12, 0, 0, _INT8)

_first = Struct(">hiq").pack
_numbers = Struct(">iqiqiiiqiqiq").pack
_tail = Struct(">iqiqiq").pack
_dates = Struct(">hiqiqiqiq").pack
_doubles = Struct(">hiqididiq").pack
_length = Struct(">i").pack
_last = Struct(">iq").pack
_one_key = Struct(">iiiiiiiq").pack


@dataclass(slots=True)
class PackedRows:
    """Rows of new resources, ready but for the moment of the write.

    Parameters
    ----------
    resources : rows of `fhir.resource` without their first column, in the order of their keys
    tables : name, columns and rows of the index tables that get any
    """

    resources: list[bytes]
    tables: list[tuple[str, tuple[str, ...], bytes]]


def pack_rows(changes: Sequence[Change]) -> PackedRows:
    """Pack new resources; each has its row number, index values, and MOMENT in its content."""
    # In the order of their keys: two writers then meet in the unique index in the same order and cannot deadlock.
    resources = [_resource(change) for change in sorted(changes, key=lambda change: change.key)]
    dates, strings, numbers = [], [], []
    for change in changes:
        if (values := change.values) is not None:
            row = change.row
            dates += [(path, low, high, row) for path, low, high in values.dates]
            numbers += [(path, low, high, row) for path, low, high in values.numbers]
            strings += [(path, text, row) for path, text in values.strings]
    tables = [
        ("posting", _POSTING, _postings(changes)),
        ("date_value", _RANGE, b"".join([_dates(4, 8, p, 8, a, 8, b, 8, r) for p, a, b, r in sorted(dates)])),
        ("number_value", _RANGE, b"".join([_doubles(4, 8, p, 8, a, 8, b, 8, r) for p, a, b, r in sorted(numbers)])),
        ("string_value", _STRING, b"".join([_string(*item) for item in sorted(strings)])),
    ]
    return PackedRows(resources, [table for table in tables if table[2]])


@lru_cache(maxsize=1024)  # Types and methods.
def _word(value: str) -> bytes:
    return _text(value)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _length(len(encoded)) + encoded


def _string(path: int, value: str, row: int) -> bytes:
    return _first(3, 8, path) + _text(value) + _last(8, row)


def _keys(keys: Sequence[int]) -> bytes:
    if len(keys) == 1:
        return _one_key(32, 1, 0, _INT8, 1, 1, 8, keys[0])
    if not keys:
        return _NO_KEYS
    items = b"".join([_last(8, key) for key in keys])
    return pack(">iiiiii", 20 + len(items), 1, 0, _INT8, len(keys), 1) + items


def _resource(change: Change) -> bytes:
    values, content = change.values, sealed(change.content, change.resource_type, change.logical_id)
    if values is None or content is None:
        raise ValueError("only new content is packed")
    logical_id = change.logical_id.encode()
    return b"".join(
        (
            _numbers(8, change.row, 8, change.key, 4, 1, 8, values.present, 8, values.low, 8, values.high),
            _word(change.resource_type),
            _length(len(logical_id)),
            logical_id,
            _word(change.method),
            _keys(change.patient_keys),
            _length(len(content)),
            content,
        )
    )


def _postings(changes: Iterable[Change]) -> bytes:
    """Rows in the order of the primary key, but for the sign of hashes: grouped, and resources sorted only once."""
    found = [(change.values.low, change.row, change.values) for change in changes if change.values is not None]
    found.sort(key=lambda item: item[:2])
    groups: dict[int, list[bytes]] = {}
    for low, row, values in found:
        tail = _tail(8, low, 8, row, 8, values.high)
        for value in values.postings:
            group = groups.get(value)
            if group is None:
                groups[value] = [tail]
            else:
                group.append(tail)
    rows = []
    for value in sorted(groups):
        head = _first(4, 8, value)
        rows.append(head + head.join(groups[value]))
    return b"".join(rows)


async def exists(connection: Any, keys: list[int]) -> bool:
    """Whether any of these resources is there, deleted ones included."""
    found = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM fhir.resource WHERE key = ANY($1::bigint[]))", keys
    )  # fmt: skip
    return bool(found)


async def write_rows(connection: Any, packed: PackedRows, updated: datetime) -> None:
    """Write new resources as of this moment. Inside a transaction.

    Raises
    ------
    asyncpg.UniqueViolationError
        One of them is there by now; the caller decides again.
    """
    if not packed.resources:
        return
    updated = updated.replace(microsecond=updated.microsecond // 1000 * 1000)
    head = _first(len(_RESOURCE), 8, (updated - _EPOCH) // timedelta(microseconds=1))
    rows = (head + head.join(packed.resources)).replace(_MARK, instant(updated).encode())
    await _copy(connection, "resource", _RESOURCE, rows)
    for name, columns, content in packed.tables:
        await _copy(connection, name, columns, content)


async def _copy(connection: Any, table: str, columns: tuple[str, ...], rows: bytes) -> None:
    source = BytesIO(b"".join((_HEAD, rows, _END)))
    await connection.copy_to_table(table, source=source, columns=columns, schema_name="fhir", format="binary")
