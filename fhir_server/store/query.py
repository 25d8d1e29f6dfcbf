"""Turn a selection into one SQL statement over the index; access conditions are conditions like any other.

One condition is the source of rows (the driver); all others are questions about a row of the source, each a look into
an index. Which one drives is decided here (`store/arranging.py` puts the most selective first), not by the planner:
sub-selects with ``OFFSET 0`` are never reordered, so a statement has one plan, whatever the statistics say.
ADR 0014 has the reasons and figures.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from fhir_server.search.conditions import (
    AllOf,
    AnyOf,
    AnyPosting,
    Chained,
    Condition,
    Deferred,
    FullText,
    InInstitution,
    Keys,
    LastUpdated,
    MainDate,
    Near,
    Not,
    Nothing,
    NumberPair,
    Pairs,
    Present,
    RangeValues,
    ReverseChained,
    Role,
    Selection,
    StringPattern,
    StringValues,
)
from fhir_server.search.dates import MISSING
from fhir_server.search.parameters import type_base
from fhir_server.store import institutions
from fhir_server.store.comparisons import main_date_clause, moment_clause, uses
from fhir_server.store.statement import Statement
from fhir_server.store.value_tables import row_clause, row_sources
from foramen.kernel.errors import InvalidRequestError

_FEW = 8
"""Postings that are looked up one by one for each row; more are collected once."""
_JSON = "convert_from({r}.content, 'UTF8')::jsonb"


class SelectionQuery:
    """FROM and WHERE of one selection; `driver` names the row source that carries low, high and row.

    Parameters
    ----------
    given : alias of a row source that is there already (low, high, row); then every condition is a question about it
    branched : leave a list of postings to the caller: `branches` is the source of ``u.h`` and the query is for one of
        them, so that each can stop at its own limit
    source : such a source of ``u.h``, written elsewhere, which drives instead of a condition
    """

    def __init__(
        self,
        selection: Selection,
        statement: Statement,
        *,
        given: str | None = None,
        branched: bool = False,
        source: str | None = None,
    ) -> None:
        self._statement = statement
        self._joins: list[str] = []
        self._where: list[str] = []
        self._from = ""
        self._type = selection.resource_type
        self.resource: str | None = None
        self.branches: str | None = None
        conditions = ordered(selection)
        if given is not None:
            self.driver = given
        elif source is not None:
            self.driver = self._list(source, "", branched=True)
        else:
            self.driver = self._drive(conditions, branched=branched)
        for condition in conditions:
            self._where.append(self._clause(condition))

    def need_resource(self) -> str:
        """Join the resource row and return its alias."""
        if self.resource is None:
            self.resource = self._join_resource(f"x.row = {self.driver}.row")
        return self.resource

    def add(self, clause: str) -> None:
        """Add a WHERE clause."""
        self._where.append(clause)

    def join(self, text: str) -> None:
        """Add a join."""
        self._joins.append(text)

    def text(self) -> str:
        """FROM … WHERE …"""
        return f"FROM {self._from} {self.joins()} WHERE {self.where()}"

    def rows(self) -> str:
        """SELECT row FROM …"""
        return f"SELECT {self.driver}.row {self.text()}"

    def joins(self) -> str:
        """All joins (for a query about a given source)."""
        return " ".join(self._joins)

    def where(self) -> str:
        """All clauses."""
        return " AND ".join(self._where) or "true"

    # Sources of rows

    def _drive(self, conditions: list[Condition], *, branched: bool) -> str:
        """Take the first condition that can be a source of rows out of the list and make it the source."""
        for place, condition in enumerate(conditions):
            driver = self._source(condition, branched=branched)
            if driver is not None:
                # A resource found by its key or time may be of another type or deleted; a MainDate also bounds.
                del conditions[place]
                return driver
        return self._posting(self._statement.value(type_base(self._type), "bigint"))

    def _source(self, condition: Condition, *, branched: bool) -> str | None:
        statement = self._statement
        match condition:
            case AnyPosting(hashes, False):
                if len(hashes) == 1:
                    return self._posting(statement.value(hashes[0], "bigint"))
                return self._list(f"unnest({statement.value(list(hashes), 'bigint[]')}) AS u(h)", "", branched)
            case Pairs(pairs, checks):
                lists = ", ".join(statement.value(list(found), "bigint[]") for found in (pairs, checks))
                check = (
                    " AND EXISTS (SELECT FROM fhir.posting w WHERE w.hash = u.w AND w.low = {p}.low"
                    " AND w.row = {p}.row OFFSET 0)"
                )
                return self._list(f"unnest({lists}) AS u(h, w)", check, branched)
            case RangeValues() | NumberPair() | StringValues() | StringPattern():
                return self._found_rows(row_sources(condition, statement))
            case FullText():
                return self._found_rows(self._full_text(condition))
            case Keys(keys, False):
                return self._resources(f"key = ANY({statement.value(list(keys), 'bigint[]')})")
            case LastUpdated():
                return self._resources(last_updated_clause(condition, "updated", statement))
            case Chained(canonical=False):
                return self._linked(condition)
            case AnyOf(conditions) if conditions and all(map(is_source, conditions)):
                return self._united(conditions)
        return None

    def _posting(self, value: str) -> str:
        alias = self._statement.alias("p")
        self._from = f"fhir.posting {alias}"
        self._where.append(f"{alias}.hash = {value}")
        return alias

    def _list(self, source: str, check: str, branched: bool) -> str:
        if branched:
            self.branches = source
            alias = self._posting("u.h")
            if check:
                self._where.append(check.format(p=alias).removeprefix(" AND "))
            return alias
        alias = self._statement.alias("p")
        self._from = (
            f"(SELECT DISTINCT i.low, i.row, i.high FROM {source} CROSS JOIN LATERAL (SELECT e.low, e.row, e.high"
            f" FROM fhir.posting e WHERE e.hash = u.h{check.format(p='e')} OFFSET 0) i) {alias}"
        )
        return alias

    def _found_rows(self, rows: str) -> str:
        source = self._statement.alias("f")
        self._from = f"({rows}) {source}"
        self.resource = self._join_resource(f"x.row = {source}.row")
        return self.resource

    def _resources(self, clause: str) -> str:
        self.resource = alias = self._statement.alias("r")
        wanted = f"type = {self._statement.value(self._type, 'text')} AND content IS NOT NULL AND {clause}"
        self._from = f"(SELECT * FROM fhir.resource WHERE {wanted} OFFSET 0) {alias}"
        return alias

    def _united(self, conditions: tuple[Condition, ...]) -> str:
        """Return the rows of all alternatives, each read from its own source."""
        parts = []
        for condition in conditions:
            inner = SelectionQuery(Selection(self._type, (condition,)), self._statement)
            parts.append(f"SELECT {inner.driver}.low, {inner.driver}.row, {inner.driver}.high {inner.text()}")
        alias = self._statement.alias("p")
        self._from = f"(SELECT DISTINCT low, row, high FROM ({' UNION ALL '.join(parts)}) n) {alias}"
        return alias

    def _linked(self, chained: Chained) -> str:
        alias = self._statement.alias("p")
        self._from = f"(SELECT DISTINCT low, row, high FROM ({self._links(chained)}) n) {alias}"
        return alias

    def _links(self, chained: Chained) -> str:
        """Postings that refer to a target of the chain."""
        statement, parts = self._statement, []
        for target in chained.targets:
            inner = SelectionQuery(target, statement)
            resource = inner.need_resource()
            paths, link = statement.value(list(chained.bases), "bigint[]"), statement.alias("k")
            parts.append(
                f"SELECT {link}.low, {link}.row, {link}.high FROM (SELECT {resource}.key {inner.text()}) t_{link}"
                f" CROSS JOIN unnest({paths}) AS b_{link}(path) CROSS JOIN LATERAL (SELECT e.low, e.row, e.high"
                f" FROM fhir.posting e WHERE e.hash = b_{link}.path # t_{link}.key OFFSET 0) {link}"
            )
        return " UNION ALL ".join(parts)

    def _join_resource(self, clause: str) -> str:
        alias = self._statement.alias("r")
        self._joins.append(f"CROSS JOIN LATERAL (SELECT * FROM fhir.resource x WHERE {clause} OFFSET 0) {alias}")
        return alias

    # Questions about a row

    def _clause(self, condition: Condition) -> str:
        statement, driver = self._statement, self.driver
        match condition:
            case AnyPosting(hashes, negated):
                return ("NOT " if negated else "") + self._has_posting(hashes)
            case Pairs(pairs, checks):
                return f"({self._has_posting(pairs)} AND {self._has_posting(checks)})"
            case MainDate(ranges):
                compared = main_date_clause(f"{driver}.low", f"{driver}.high", ranges, statement)
                return f"({driver}.low > {MISSING} AND {compared})"
            case RangeValues() | NumberPair() | StringValues() | StringPattern():
                return row_clause(condition, f"{driver}.row", statement)
            case FullText():
                return f"EXISTS (SELECT FROM ({self._full_text(condition, f'{driver}.row')}) n)"
            case Near():
                return self._near(condition)
            case Present(bits, wanted):
                field = f"{self.need_resource()}.present & {statement.value(bits, 'bigint')}"
                return f"({field}) {'<>' if wanted else '='} 0"
            case Keys(keys, negated):
                found = f"{self.need_resource()}.key = ANY({statement.value(list(keys), 'bigint[]')})"
                return f"NOT {found}" if negated else found
            case LastUpdated():
                return last_updated_clause(condition, f"{self.need_resource()}.updated", statement)
            case InInstitution():
                return institutions.row_clause(condition, f"{driver}.row", statement.value, statement.alias("_"))
            case Chained(canonical=False):
                return self._chained(condition)
            case ReverseChained(canonical=False):
                return self._reverse_chained(condition)
            case AnyOf(conditions):
                return "(" + (" OR ".join(self._clause(item) for item in conditions) or "false") + ")"
            case AllOf(conditions):
                return "(" + (" AND ".join(self._clause(item) for item in conditions) or "true") + ")"
            case Not(inner):
                return f"NOT {self._clause(inner)}"
            case Nothing():
                return "false"
            case _:
                return _unresolved(condition)

    def _has_posting(self, hashes: tuple[int, ...]) -> str:
        statement, driver, alias = self._statement, self.driver, self._statement.alias("q")
        if len(hashes) == 1:
            asked = f"{alias}.hash = {statement.value(hashes[0], 'bigint')}"
        else:
            asked = f"{alias}.hash = ANY({statement.value(list(hashes), 'bigint[]')})"
        if len(hashes) > _FEW:
            return (
                f"({driver}.low, {driver}.row) IN (SELECT {alias}.low, {alias}.row FROM fhir.posting {alias}"
                f" WHERE {asked} OFFSET 0)"
            )
        return (
            f"EXISTS (SELECT FROM fhir.posting {alias} WHERE {asked} AND {alias}.low = {driver}.low"
            f" AND {alias}.row = {driver}.row OFFSET 0)"
        )

    def _full_text(self, condition: FullText, row: str = "") -> str:
        query = f"{self._statement.value(condition.query, 'text')}::tsquery"
        here = f" AND t.row = {row} OFFSET 0" if row else ""
        return f"SELECT t.row FROM fhir.full_text t WHERE t.{condition.field} @@ {query}{here}"

    def _near(self, condition: Near) -> str:
        """Great-circle distance (haversine, Earth's mean radius 6371 km) from the stored position."""
        position = f"({_JSON.format(r=self.need_resource())} -> 'position')"
        latitude, longitude = (f"radians(({position} ->> '{name}')::float8)" for name in ("latitude", "longitude"))
        here, there = (
            f"radians({self._statement.value(value, 'float8')})" for value in (condition.latitude, condition.longitude)
        )
        half = (
            f"power(sin(({latitude} - {here}) / 2), 2)"
            f" + cos({here}) * cos({latitude}) * power(sin(({longitude} - {there}) / 2), 2)"
        )
        return f"(12742 * asin(sqrt(least(1, {half}))) <= {self._statement.value(condition.kilometres, 'float8')})"

    def _chained(self, chained: Chained) -> str:
        """Many targets: each row's own patients are looked up where the path says so, else all links are collected."""
        parts = []
        if chained.by_patient:
            parts += [self._patient_is(target, chained.bases) for target in chained.targets]
        else:
            parts.append(f"({self.driver}.low, {self.driver}.row) IN (SELECT low, row FROM ({self._links(chained)}) n)")
        return "(" + (" OR ".join(parts) or "false") + ")"

    def _patient_is(self, target: Selection, bases: tuple[int, ...]) -> str:
        statement, driver = self._statement, self.driver
        patient = statement.alias("t")
        inner = SelectionQuery(target, statement, given=patient)
        inner.resource = patient
        paths = statement.value(list(bases), "bigint[]")
        return (
            f"EXISTS (SELECT FROM unnest({self.need_resource()}.patients) AS k_{patient}(key)"
            f" CROSS JOIN LATERAL (SELECT * FROM fhir.resource x WHERE x.key = k_{patient}.key OFFSET 0) {patient}"
            f" {inner.joins()} WHERE {patient}.content IS NOT NULL AND {inner.where()}"
            f" AND EXISTS (SELECT FROM unnest({paths}) AS b(path) JOIN fhir.posting l"
            f" ON l.hash = b.path # {patient}.key AND l.low = {driver}.low AND l.row = {driver}.row OFFSET 0) OFFSET 0)"
        )

    def _reverse_chained(self, chained: ReverseChained) -> str:
        statement, own = self._statement, self.need_resource()
        link = statement.alias("k")
        paths = statement.value(list(chained.bases), "bigint[]")
        inner = SelectionQuery(chained.source, statement, given=link)
        return (
            f"EXISTS (SELECT FROM unnest({paths}) AS b_{link}(path) CROSS JOIN LATERAL (SELECT e.low, e.row, e.high"
            f" FROM fhir.posting e WHERE e.hash = b_{link}.path # {own}.key OFFSET 0) {link} {inner.joins()}"
            f" WHERE {inner.where()} OFFSET 0)"
        )


def last_updated_clause(condition: LastUpdated, field: str, statement: Statement) -> str:
    """Compare `meta.lastUpdated`."""
    parts = []
    for found in condition.ranges:
        bounds = [
            f"to_timestamp({statement.value(value / 1e6, 'double precision')})" if used else ""
            for value, used in zip((found.low, found.high), uses(found.prefix, "moment"), strict=True)
        ]
        parts.append(moment_clause(found.prefix, field, *bounds))
    return "(" + " OR ".join(parts) + ")"


def _unresolved(condition: Deferred | Chained | ReverseChained) -> str:
    """Refuse what nobody has looked up: in places where no terminology is at hand."""
    if isinstance(condition, Deferred | Chained | ReverseChained):
        raise InvalidRequestError(
            "A parameter that needs the terminology or another resource cannot be used here",
            issue_code="not-supported",
        )
    assert_never(condition)


def ordered(selection: Selection) -> list[Condition]:
    """Return the conditions, nested conjunctions opened, in the order in which they are tried as a source of rows."""
    conditions = list(opened(selection.conditions))
    return conditions if selection.arranged else sorted(conditions, key=usual_rank)


def opened(conditions: Iterable[Condition]) -> Iterable[Condition]:
    """Yield the conditions, those inside conjunctions one by one."""
    for condition in conditions:
        if isinstance(condition, AllOf):
            yield from opened(condition.conditions)
        else:
            yield condition


_NO_SOURCE = 99
_RANKS: dict[type[Condition], int] = {
    Pairs: 0,
    Keys: 1,
    FullText: 5,
    StringValues: 6,
    NumberPair: 6,
    RangeValues: 7,
    StringPattern: 8,
    AnyOf: 8,
    LastUpdated: 9,
    Chained: 10,
}


def is_source(condition: Condition) -> bool:
    """Whether a condition can be a source of rows that is read in bounded time (not a whole type)."""
    match condition:
        case AnyPosting(_, negated) | Keys(_, negated):
            return not negated
        case AnyOf(conditions):
            return bool(conditions) and all(map(is_source, conditions))
        case AllOf(conditions):
            return any(map(is_source, conditions))
    return isinstance(condition, Pairs | FullText | StringValues | NumberPair | RangeValues | LastUpdated)


def usual_rank(condition: Condition) -> int:
    """Rank as a source of rows when nothing is known about the values; lower goes first."""
    if isinstance(condition, AnyPosting):
        if condition.role in (Role.SELECTIVE, Role.PATIENT):
            return 2 if len(condition.hashes) == 1 else 3
        return 4 if len(condition.hashes) == 1 else 5
    if isinstance(condition, AnyOf) and not is_source(condition):
        return _NO_SOURCE
    return _RANKS.get(type(condition), _NO_SOURCE)


def count_statement(selection: Selection) -> tuple[str, list[object]]:
    """Build the statement that counts all matches."""
    statement = Statement()
    query = SelectionQuery(selection, statement)
    return f"SELECT count(*) {query.text()}", statement.arguments


__all__ = [
    "SelectionQuery",
    "Statement",
    "count_statement",
    "is_source",
    "last_updated_clause",
    "ordered",
    "usual_rank",
]
