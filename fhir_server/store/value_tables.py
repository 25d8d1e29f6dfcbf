"""Dates, strings and numbers in SQL: as a source of rows, and as a question about one row.

Each condition can be asked both ways. As a source it is a range of the index (path, value, row); about a row it is a
look into the index (row, path, value). Lists of values travel as arrays, so the text does not grow with them.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from fhir_server.search.conditions import Match, NumberPair, RangeValues, StringPattern, StringValues
from fhir_server.store.comparisons import date_clause, number_clause
from fhir_server.store.statement import Statement

ValueCondition = RangeValues | NumberPair | StringValues | StringPattern
_PATTERNS = {
    Match.CONTAINS: "EXISTS (SELECT FROM unnest({texts}) AS {u}(t) WHERE strpos({v}.value, {u}.t) > 0)",
    Match.ENDS: "EXISTS (SELECT FROM unnest({texts}) AS {u}(t) WHERE right({v}.value, length({u}.t)) = {u}.t)",
    Match.DIFFERS: "{v}.value <> ALL({texts})",
}


def row_sources(condition: ValueCondition, statement: Statement, *, distinct: bool = True) -> str:
    """Return a SELECT of the rows that fulfil the condition (each once, when `distinct`)."""
    parts = []
    for source, table, clause in _questions(condition, statement):
        alias = statement.alias("v")
        looked = f"SELECT {alias}.row FROM fhir.{table} {alias} WHERE {clause.replace('{v}', alias)} OFFSET 0"
        parts.append(f"SELECT l_{alias}.row FROM {source} CROSS JOIN LATERAL ({looked}) l_{alias}")
    if not distinct:
        return " UNION ALL ".join(parts)
    return f"SELECT DISTINCT row FROM ({' UNION ALL '.join(parts)}) d_{statement.alias('v')}"


def row_clause(condition: ValueCondition, row: str, statement: Statement) -> str:
    """Return the clause that a row fulfils the condition."""
    parts = []
    for source, table, clause in _questions(condition, statement):
        alias = statement.alias("v")
        parts.append(
            f"EXISTS (SELECT FROM {source} JOIN fhir.{table} {alias} ON {alias}.row = {row}"
            f" AND {clause.replace('{v}', alias)} OFFSET 0)"
        )
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"


def _questions(condition: ValueCondition, statement: Statement) -> list[tuple[str, str, str]]:
    """Return (rows of what is asked, table, clause); ``{v}`` in the clause stands for the table's alias."""
    match condition:
        case RangeValues():
            return _ranges(condition, statement)
        case NumberPair():
            return [_number_pair(condition, statement)]
        case StringValues():
            return [_strings(condition, statement)]
        case StringPattern():
            return [_pattern(condition, statement)]


def _ranges(condition: RangeValues, statement: Statement) -> list[tuple[str, str, str]]:
    table = condition.table
    sql_type, compare = ("bigint", date_clause) if table == "date_value" else ("double precision", number_clause)
    groups: dict[str, tuple[list[int], list[float], list[float]]] = {}
    for paths, found in condition.alternatives:
        columns = groups.setdefault(found.prefix, ([], [], []))
        for path in paths:
            for column, value in zip(columns, (path, found.low, found.high), strict=True):
                column.append(value)  # type: ignore[attr-defined]
    questions = []
    for prefix, (paths_asked, least, most) in groups.items():
        u = statement.alias("u")
        source = (
            f"unnest({statement.value(paths_asked, 'bigint[]')}, {statement.value(least, sql_type + '[]')},"
            f" {statement.value(most, sql_type + '[]')}) AS {u}(path, least, most)"
        )
        compared = compare(prefix, "{v}.low", "{v}.high", f"{u}.least", f"{u}.most")
        questions.append((source, table, f"{{v}}.path = {u}.path AND {compared}"))
    return questions


def _number_pair(condition: NumberPair, statement: Statement) -> tuple[str, str, str]:
    u, clauses = statement.alias("u"), []
    for field, found in (("{v}.low", condition.first), ("{v}.high", condition.second)):
        least, most = (statement.value(bound, "double precision") for bound in (found.low, found.high))
        # Both bounds get a place, so that neither is a parameter of unknown use.
        clauses.append(f"{number_clause(found.prefix, field, field, least, most)} AND {least} <= {most}")
    source = f"unnest({statement.value(list(condition.paths), 'bigint[]')}) AS {u}(path)"
    return source, "number_value", f"{{v}}.path = {u}.path AND {' AND '.join(clauses)}"


def _strings(condition: StringValues, statement: Statement) -> tuple[str, str, str]:
    u, w = statement.alias("u"), statement.alias("u")
    least = statement.value([low for low, _ in condition.ranges], "text[]")
    most = statement.value([high for _, high in condition.ranges], "text[]")
    source = (
        f"unnest({statement.value(list(condition.paths), 'bigint[]')}) AS {u}(path)"
        f" CROSS JOIN unnest({least}, {most}) AS {w}(least, most)"
    )
    compared = f'{{v}}.value >= {w}.least COLLATE "C" AND {{v}}.value < {w}.most COLLATE "C"'
    return source, "string_value", f"{{v}}.path = {u}.path AND {compared}"


def _pattern(condition: StringPattern, statement: Statement) -> tuple[str, str, str]:
    u, w = statement.alias("u"), statement.alias("u")
    source = f"unnest({statement.value(list(condition.paths), 'bigint[]')}) AS {u}(path)"
    texts = statement.value(list(condition.texts), "text[]")
    compared = _PATTERNS[condition.match].format(texts=texts, u=w, v="{v}")
    return source, "string_value", f"{{v}}.path = {u}.path AND {compared}"
