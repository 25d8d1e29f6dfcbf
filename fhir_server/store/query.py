"""Turn a selection into one SQL statement over the index; access conditions are conditions like any other.

Every type is driven by a posting `p`; single equalities become joins on (low, row), which the planner may reorder,
everything else a semi-join. Values are always parameters.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from typing import Any, TypeGuard

from fhir_server.search.conditions import (
    AnyOf,
    AnyPosting,
    Chained,
    Condition,
    Keys,
    LastUpdated,
    MainDate,
    Nothing,
    Present,
    Range,
    RangeValues,
    ReverseChained,
    Selection,
    SortKey,
    SortKind,
    StringValues,
)
from fhir_server.search.dates import MISSING
from fhir_server.search.parameters import type_base

LEAST_NUMBER = -1.7976931348623157e308
"""Stands for "no value" in an order by number; infinity could not be written into a page link."""
_UPDATED = "(extract(epoch FROM {r}.updated) * 1000000)::bigint"


class Statement:
    """SQL text under construction, with its parameters."""

    def __init__(self) -> None:
        self.arguments: list[Any] = []
        self._aliases = 0

    def value(self, value: Any, sql_type: str) -> str:
        """Add a parameter and return its placeholder."""
        self.arguments.append(value)
        return f"${len(self.arguments)}::{sql_type}"

    def alias(self, stem: str) -> str:
        """Return an unused alias."""
        self._aliases += 1
        return f"{stem}{self._aliases}"


def _comparison(low: str, high: str, found: Range, statement: Statement, sql_type: str, *, point: bool) -> str:
    """Compare a stored range with the searched one (search.html#prefix); `point` when stored values are exact.

    A stored date is half-open [low, high): it lies wholly above a searched one when ``low >= searched high``. Stored
    numbers are closed, and for gt, lt, ge, le a searched number stands for itself (its implied precision counts for
    eq, ne and ap only).
    """
    clause = _CLOSED[found.prefix] if point else _HALF_OPEN[found.prefix]
    names = {"low": low, "high": high}
    if "{least}" in clause:
        names["least"] = statement.value(found.low, sql_type)
    if "{most}" in clause:
        names["most"] = statement.value(found.high, sql_type)
    return clause.format(**names)


_HALF_OPEN = {
    "eq": "({low} >= {least} AND {high} <= {most})",
    "ne": "NOT ({low} >= {least} AND {high} <= {most})",
    "gt": "{high} > {most}",
    "lt": "{low} < {least}",
    "ge": "({high} > {most} OR ({low} >= {least} AND {high} <= {most}))",
    "le": "({low} < {least} OR ({low} >= {least} AND {high} <= {most}))",
    "sa": "{low} >= {most}",
    "eb": "{high} <= {least}",
    "ap": "({low} < {most} AND {high} > {least})",
}
_CLOSED = {
    "eq": "({low} >= {least} AND {high} < {most})",
    "ne": "NOT ({low} >= {least} AND {high} < {most})",
    "gt": "{high} > {most}",
    "lt": "{low} < {least}",
    "ge": "{high} >= {most}",
    "le": "{low} <= {least}",
    "sa": "{low} > {most}",
    "eb": "{high} < {least}",
    "ap": "({low} < {most} AND {high} >= {least})",
}
_UPDATED_IN = {
    "eq": "({field} >= {least} AND {field} < {most})",
    "ne": "NOT ({field} >= {least} AND {field} < {most})",
    "gt": "{field} >= {most}",
    "sa": "{field} >= {most}",
    "lt": "{field} < {least}",
    "eb": "{field} < {least}",
    "ge": "{field} >= {least}",
    "le": "{field} < {most}",
    "ap": "({field} >= {least} AND {field} < {most})",
}
_BY_ROW = (RangeValues, StringValues, Keys, LastUpdated, Present, ReverseChained, AnyOf)
"""Conditions that know a resource by its row alone: they are answered through the resource, which knows its date."""


class SelectionQuery:
    """FROM and WHERE of one selection; `driver` names the row source that carries low, high and row.

    The source is a posting when an exact value is asked, else the resource itself when some condition finds rows, else
    the posting that every resource of the type has (which lies in the order of the answer). A posting can be probed
    only with its date, so rows reach it through the resource.
    """

    def __init__(self, selection: Selection, statement: Statement) -> None:
        self._statement = statement
        self._joins: list[str] = []
        self._where: list[str] = []
        self.resource: str | None = None
        singles = [c.hashes[0] for c in selection.conditions if _is_single(c)]
        rest = [c for c in selection.conditions if not _is_single(c)]
        lists = [c for c in rest if isinstance(c, AnyPosting) and not c.negated]
        if singles:
            self.driver = self._posting(singles[0])
            for value in singles[1:]:
                self._join_posting(value)
        elif lists:
            rest.remove(lists[0])
            self.driver = statement.alias("p")
            hashes = statement.value(list(lists[0].hashes), "bigint[]")
            self._from = f"(SELECT DISTINCT low, row, high FROM fhir.posting WHERE hash = ANY({hashes})) {self.driver}"
        elif any(isinstance(condition, _BY_ROW) for condition in rest):
            self.driver = self.resource = statement.alias("r")
            self._from = f"fhir.resource {self.driver}"
            self._where.append(f"{self.driver}.type = {statement.value(selection.resource_type, 'text')}")
            self._where.append(f"{self.driver}.content IS NOT NULL")
        else:
            self.driver = self._posting(type_base(selection.resource_type))
        for condition in rest:
            self._where.append(self._condition(condition))

    def _posting(self, value: int) -> str:
        alias = self._statement.alias("p")
        self._from = f"fhir.posting {alias}"
        self._where.append(f"{alias}.hash = {self._statement.value(value, 'bigint')}")
        return alias

    def _join_posting(self, value: int) -> None:
        alias, driver = self._statement.alias("q"), self.driver
        placeholder = self._statement.value(value, "bigint")
        self._joins.append(
            f"JOIN fhir.posting {alias} ON {alias}.hash = {placeholder} AND {alias}.low = {driver}.low"
            f" AND {alias}.row = {driver}.row"
        )

    def need_resource(self) -> str:
        """Join the resource row and return its alias."""
        if self.resource is None:
            alias = self.resource = self._statement.alias("r")
            self._joins.append(
                f"JOIN fhir.resource {alias} ON {alias}.row = {self.driver}.row AND {alias}.low = {self.driver}.low"
            )
        return self.resource

    def add(self, clause: str) -> None:
        """Add a WHERE clause."""
        self._where.append(clause)

    def text(self) -> str:
        """FROM … WHERE …"""
        return f"FROM {self._from} {' '.join(self._joins)} WHERE {' AND '.join(self._where) or 'true'}"

    def _condition(self, condition: Condition) -> str:
        statement, driver = self._statement, self.driver
        match condition:
            case AnyPosting(hashes, negated):
                alias = statement.alias("q")
                found = (
                    f"EXISTS (SELECT FROM fhir.posting {alias} WHERE {alias}.hash = "
                    f"ANY({statement.value(list(hashes), 'bigint[]')}) AND {alias}.low = {driver}.low"
                    f" AND {alias}.row = {driver}.row)"
                )
                return f"NOT {found}" if negated else found
            case MainDate(ranges):
                low, high = f"{driver}.low", f"{driver}.high"
                any_of = " OR ".join(_comparison(low, high, r, statement, "bigint", point=False) for r in ranges)
                return f"({low} > {MISSING} AND ({any_of}))"
            case RangeValues(table, alternatives):
                return self._range_values(table, alternatives)
            case StringValues():
                return self._string_values(condition)
            case Present(bits, wanted):
                field = f"{self.need_resource()}.present & {statement.value(bits, 'bigint')}"
                return f"({field}) {'<>' if wanted else '='} 0"
            case Keys(keys, negated):
                resource = self.need_resource()
                found = f"{resource}.key = ANY({statement.value(list(keys), 'bigint[]')})"
                return f"NOT {found}" if negated else found
            case LastUpdated(ranges):
                return self._last_updated(ranges)
            case Chained(bases, targets):
                return self._chained(bases, targets)
            case ReverseChained(bases, source):
                return self._reverse_chained(bases, source)
            case AnyOf(conditions):
                return "(" + " OR ".join(self._condition(item) for item in conditions) + ")"
            case Nothing():
                return "false"

    def _last_updated(self, ranges: tuple[Range, ...]) -> str:
        resource = self.need_resource()
        parts = []
        for found in ranges:
            clause, names = _UPDATED_IN[found.prefix], {"field": f"{resource}.updated"}
            for name, value in (("least", found.low), ("most", found.high)):
                if f"{{{name}}}" in clause:
                    names[name] = f"to_timestamp({self._statement.value(value / 1e6, 'double precision')})"
            parts.append(clause.format(**names))
        return "(" + " OR ".join(parts) + ")"

    def _range_values(self, table: str, alternatives: tuple[tuple[tuple[int, ...], Range], ...]) -> str:
        alias, statement = self._statement.alias("v"), self._statement
        sql_type, point = ("bigint", False) if table == "date_value" else ("double precision", True)
        parts = []
        for paths, found in alternatives:
            compared = _comparison(f"{alias}.low", f"{alias}.high", found, statement, sql_type, point=point)
            parts.append(f"({alias}.path = ANY({statement.value(list(paths), 'bigint[]')}) AND {compared})")
        any_of = " OR ".join(parts)
        return f"{self.need_resource()}.row IN (SELECT {alias}.row FROM fhir.{table} {alias} WHERE {any_of})"

    def _string_values(self, condition: StringValues) -> str:
        alias, statement = self._statement.alias("s"), self._statement
        parts = []
        for text in condition.texts:
            if condition.contains:
                parts.append(f"strpos({alias}.value, {statement.value(text, 'text')}) > 0")
            else:
                # The upper end is the prefix followed by the last code point there is.
                least, most = statement.value(text, "text"), statement.value(text + "\U0010ffff", "text")
                parts.append(f"({alias}.value >= {least} AND {alias}.value < {most})")
        paths = statement.value(list(condition.paths), "bigint[]")
        return (
            f"{self.need_resource()}.row IN (SELECT {alias}.row FROM fhir.string_value {alias}"
            f" WHERE {alias}.path = ANY({paths}) AND ({' OR '.join(parts)}))"
        )

    def _chained(self, bases: tuple[int, ...], targets: tuple[Selection, ...]) -> str:
        statement, parts = self._statement, []
        for target in targets:
            inner = SelectionQuery(target, statement)
            resource, link = inner.need_resource(), statement.alias("k")
            paths = statement.value(list(bases), "bigint[]")
            base = statement.alias("b")
            parts.append(
                f"({self.driver}.low, {self.driver}.row) IN (SELECT {link}.low, {link}.row"
                f" FROM (SELECT {resource}.key {inner.text()}) t_{link}"
                f" CROSS JOIN unnest({paths}) AS {base}(path)"
                f" JOIN fhir.posting {link} ON {link}.hash = {base}.path # t_{link}.key)"
            )
        return "(" + " OR ".join(parts) + ")"

    def _reverse_chained(self, bases: tuple[int, ...], source: Selection) -> str:
        statement = self._statement
        own = self.need_resource()
        inner = SelectionQuery(source, statement)
        link, base = statement.alias("k"), statement.alias("b")
        paths = statement.value(list(bases), "bigint[]")
        inner.add(
            f"EXISTS (SELECT FROM unnest({paths}) AS {base}(path) JOIN fhir.posting {link}"
            f" ON {link}.hash = {base}.path # {own}.key WHERE {link}.low = {inner.driver}.low"
            f" AND {link}.row = {inner.driver}.row)"
        )
        return f"EXISTS (SELECT {inner.text()})"


def _is_single(condition: Condition) -> TypeGuard[AnyPosting]:
    return isinstance(condition, AnyPosting) and not condition.negated and len(condition.hashes) == 1


def _sort_expression(key: SortKey, query: SelectionQuery, statement: Statement) -> tuple[str, str]:
    """Return (expression, SQL type) of a sort key; it is never NULL, so that keyset paging can compare it."""
    aggregate = "max" if key.descending else "min"
    match key.kind:
        case SortKind.MAIN_DATE:
            return f"{query.driver}.low", "bigint"
        case SortKind.LAST_UPDATED:
            return _UPDATED.format(r=query.need_resource()), "bigint"
        case SortKind.ID:
            return f"{query.need_resource()}.id", "text"
        case SortKind.STRING:
            field, nothing, sql_type = "value", "''", "text"
        case SortKind.DATE:
            field, nothing, sql_type = "low", str(MISSING), "bigint"
        case SortKind.NUMBER:
            field, nothing, sql_type = "low", f"{LEAST_NUMBER!r}::double precision", "double precision"
    paths = statement.value(list(key.paths), "bigint[]")
    return (
        f"coalesce((SELECT {aggregate}(o.{field}) FROM fhir.{key.kind.value} o WHERE o.row = {query.driver}.row"
        f" AND o.path = ANY({paths})), {nothing})",
        sql_type,
    )


def page_statement(
    selection: Selection, sort: tuple[SortKey, ...], cursor: tuple[object, ...] | None, limit: int
) -> tuple[str, list[Any]]:
    """Build the statement for one page: content of the matches and the sort keys a next page starts behind."""
    statement = Statement()
    query = SelectionQuery(selection, statement)
    keys = [(*_sort_expression(key, query, statement), key.descending) for key in sort]
    keys.append((f"{query.driver}.row", "bigint", sort[-1].descending))
    if cursor is not None:
        query.add(_after(keys, cursor, statement))
    columns = ", ".join(f"{expression} AS k{number}" for number, (expression, _, _) in enumerate(keys))
    order = ", ".join(f"{expression} {'DESC' if down else 'ASC'}" for expression, _, down in keys)
    outer = ", ".join(f"c.k{number} {'DESC' if down else 'ASC'}" for number, (_, _, down) in enumerate(keys))
    inner = f"SELECT {columns} {query.text()} ORDER BY {order} LIMIT {statement.value(limit, 'bigint')}"
    last = len(keys) - 1
    text = (
        f"SELECT r.type, r.id, r.version, r.updated, r.content, r.patients, c.* FROM ({inner}) c"
        f" JOIN fhir.resource r ON r.row = c.k{last} ORDER BY {outer}"
    )
    return text, statement.arguments


def _after(keys: list[tuple[str, str, bool]], cursor: tuple[object, ...], statement: Statement) -> str:
    if len({down for _, _, down in keys}) == 1:
        left = ", ".join(expression for expression, _, _ in keys)
        right = ", ".join(statement.value(v, t) for v, (_, t, _) in zip(cursor, keys, strict=True))
        return f"({left}) {'<' if keys[0][2] else '>'} ({right})"
    placeholders = [statement.value(v, t) for v, (_, t, _) in zip(cursor, keys, strict=True)]
    parts = []
    for number, (expression, _, down) in enumerate(keys):
        equal = [f"{keys[i][0]} = {placeholders[i]}" for i in range(number)]
        parts.append(" AND ".join([*equal, f"{expression} {'<' if down else '>'} {placeholders[number]}"]))
    return "(" + " OR ".join(f"({part})" for part in parts) + ")"


def count_statement(selection: Selection) -> tuple[str, list[Any]]:
    """Build the statement that counts all matches."""
    statement = Statement()
    query = SelectionQuery(selection, statement)
    return f"SELECT count(*) {query.text()}", statement.arguments
