"""One page of a selection in any order, by keyset: a page starts behind the sort values of the last match before it.

A resource without a value sorts below all that have one: first ascending, last descending. Of several values the
lowest counts ascending, the highest descending. Values that have no index of their own (tokens, references, uris) are
read from the stored bytes, which costs writes nothing (ADR 0014).

https://hl7.org/fhir/R4/search.html#sort
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_server.search.conditions import Selection, SortKey, SortKind
from fhir_server.search.dates import MISSING
from fhir_server.store.query import SelectionQuery
from fhir_server.store.statement import Statement

LEAST_NUMBER = -1.7976931348623157e308
"""Stands for "no value" in an order by number; infinity could not be written into a page link."""
_GREATEST_NUMBER = 1.7976931348623157e308
_LONGEST = 400
"""Characters of a value that count in the order, as in the index of strings."""
_SEQUENCE_BITS = 53
LAST_BUCKET = 1023
COLUMNS = "r.type, r.id, r.version, r.updated, r.content, NULL"
WITH_PATIENTS = "r.type, r.id, r.version, r.updated, r.content, r.patients"
"""Also the keys of the patients a match belongs to, which a page does not need: access is in the query."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the order: an SQL expression that is never NULL, its type and direction."""

    expression: str
    sql_type: str
    descending: bool

    @property
    def direction(self) -> str:
        """ASC or DESC."""
        return "DESC" if self.descending else "ASC"


class _Order:
    """Writes sort keys; the stored JSON is read once for all keys that need it."""

    def __init__(self, query: SelectionQuery, statement: Statement) -> None:
        self._query = query
        self._statement = statement
        self._document: str | None = None

    def keys(self, sort: tuple[SortKey, ...]) -> list[Key]:
        """Return the keys; the row number comes last, which makes the order total."""
        found = [self._key(key) for key in sort]
        return [*found, Key(f"{self._query.driver}.row", "bigint", sort[-1].descending)]

    def _key(self, key: SortKey) -> Key:
        query, down = self._query, key.descending
        match key.kind:
            case SortKind.MAIN_DATE:
                return Key(f"{query.driver}.low", "bigint", down)
            case SortKind.LAST_UPDATED:
                return Key(f"(extract(epoch FROM {query.need_resource()}.updated) * 1000000)::bigint", "bigint", down)
            case SortKind.ID:
                return Key(f"{query.need_resource()}.id", 'text COLLATE "C"', down)
            case SortKind.CONTENT:
                return Key(self._content(key), 'text COLLATE "C"', down)
            case SortKind.STRING:
                return Key(self._indexed(key, "value", "''"), 'text COLLATE "C"', down)
            case SortKind.DATE:
                return Key(self._indexed(key, "low", str(MISSING)), "bigint", down)
            case SortKind.NUMBER:
                field = f"greatest(least(o.low, {_GREATEST_NUMBER!r}::float8), -1e308::float8)"
                return Key(self._indexed(key, field, f"{LEAST_NUMBER!r}::double precision"), "double precision", down)

    def _indexed(self, key: SortKey, field: str, nothing: str) -> str:
        aggregate = "max" if key.descending else "min"
        paths = self._statement.value(list(key.paths), "bigint[]")
        named = field if "(" in field else f"o.{field}"
        return (
            f"coalesce((SELECT {aggregate}({named}) FROM fhir.{key.kind.value} o"
            f" WHERE o.row = {self._query.driver}.row AND o.path = ANY({paths})), {nothing})"
        )

    def _content(self, key: SortKey) -> str:
        if self._document is None:
            self._document = self._statement.alias("j")
            resource = self._query.need_resource()
            self._query.join(
                f"CROSS JOIN LATERAL (SELECT convert_from({resource}.content, 'UTF8')::jsonb AS doc OFFSET 0)"
                f" {self._document}"
            )
        aggregate = "max" if key.descending else "min"
        paths = self._statement.value(list(key.json_paths), "text[]")
        return (
            f"coalesce((SELECT {aggregate}(left(v.item #>> '{{}}', {_LONGEST}) COLLATE \"C\") FROM unnest({paths})"
            f" AS p(path) CROSS JOIN LATERAL jsonb_path_query({self._document}.doc, p.path::jsonpath) AS v(item)), '')"
        )


def page_statement(
    selection: Selection,
    sort: tuple[SortKey, ...],
    cursor: tuple[object, ...] | None,
    limit: int,
    partition: tuple[int, int] | None = None,
    *,
    columns: str = COLUMNS,
    statement: Statement | None = None,
    source: str | None = None,
) -> tuple[str, list[Any]]:
    """Build the statement for one page: content of the matches and the sort keys a next page starts behind.

    Parameters
    ----------
    cursor : sort values and row of the last match of the page before
    partition : first and last bucket of rows, both included
    columns : of the match, ``r``
    statement : writes the values' places, if not as parameters of one search
    source : of postings ``u.h``, instead of a condition (see `SelectionQuery`)
    """
    statement = statement or Statement()
    query = SelectionQuery(selection, statement, branched=True, source=source)
    keys = _Order(query, statement).keys(sort)
    if partition is not None:
        first, last = partition
        query.add(f"{query.driver}.row >= {statement.value(first << _SEQUENCE_BITS, 'bigint')}")
        if last < LAST_BUCKET:  # Behind the last bucket the numbers end.
            query.add(f"{query.driver}.row < {statement.value((last + 1) << _SEQUENCE_BITS, 'bigint')}")
    if cursor is not None:
        query.add(_after(keys, cursor, statement))
    sorted_by = ", ".join(f"{key.expression} AS k{number}" for number, key in enumerate(keys))
    order = ", ".join(f"{key.expression} {key.direction}" for key in keys)
    most = statement.value(limit, "bigint")
    inner = f"SELECT {sorted_by} {query.text()} ORDER BY {order} LIMIT {most}"
    if query.branches is not None:
        again = ", ".join(f"s.k{number} {key.direction}" for number, key in enumerate(keys))
        inner = (
            f"SELECT DISTINCT s.* FROM {query.branches} CROSS JOIN LATERAL ({inner}) s ORDER BY {again} LIMIT {most}"
        )
    outer = ", ".join(f"c.k{number} {key.direction}" for number, key in enumerate(keys))
    text = (
        f"SELECT {columns}, c.* FROM ({inner}) c CROSS JOIN LATERAL"
        f" (SELECT * FROM fhir.resource x WHERE x.row = c.k{len(keys) - 1} OFFSET 0) r ORDER BY {outer}"
    )
    return text, statement.arguments


def _after(keys: list[Key], cursor: tuple[object, ...], statement: Statement) -> str:
    placeholders = [statement.value(value, key.sql_type) for value, key in zip(cursor, keys, strict=True)]
    if len({key.descending for key in keys}) == 1:
        left = ", ".join(key.expression for key in keys)
        return f"({left}) {'<' if keys[0].descending else '>'} ({', '.join(placeholders)})"
    parts = []
    for number, key in enumerate(keys):
        equal = [f"{keys[i].expression} = {placeholders[i]}" for i in range(number)]
        parts.append(
            " AND ".join([*equal, f"{key.expression} {'<' if key.descending else '>'} {placeholders[number]}"])
        )
    return "(" + " OR ".join(f"({part})" for part in parts) + ")"
