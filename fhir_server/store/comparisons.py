"""Compare stored ranges with searched ones under a prefix, in SQL.

https://hl7.org/fhir/R4/search.html#prefix. A stored date is half-open [low, high): it lies wholly above a searched one
when ``low >= searched high``. Stored numbers are closed, and for gt, lt, ge, le a searched number stands for itself
(its implied precision counts for eq, ne and ap only). Bounds that follow from the others are written out where they
let an index range start or end.
"""

from __future__ import annotations

from collections.abc import Iterable

from fhir_server.search.conditions import Range
from fhir_server.store.statement import Statement

_HALF_OPEN = {
    "eq": "({low} >= {least} AND {low} < {most} AND {high} <= {most})",
    "ne": "NOT ({low} >= {least} AND {high} <= {most})",
    "gt": "{high} > {most}",
    "lt": "{low} < {least}",
    "ge": "({high} > {most} OR ({low} >= {least} AND {high} <= {most}))",
    "le": "({low} < {most} AND ({low} < {least} OR {high} <= {most}))",
    "sa": "{low} >= {most}",
    "eb": "({low} < {least} AND {high} <= {least})",
    "ap": "({low} < {most} AND {high} > {least})",
    "po": "({low} < {most} AND {high} > {least})",
}
_CLOSED = {
    "eq": "({low} >= {least} AND {low} < {most} AND {high} < {most})",
    "ne": "NOT ({low} >= {least} AND {high} < {most})",
    "gt": "{high} > {most}",
    "lt": "{low} < {least}",
    "ge": "{high} >= {most}",
    "le": "{low} <= {least}",
    "sa": "{low} > {most}",
    "eb": "({low} < {least} AND {high} < {least})",
    "ap": "({low} < {most} AND {high} >= {least})",
}
_MOMENT = {
    "eq": "({low} >= {least} AND {low} < {most})",
    "ne": "NOT ({low} >= {least} AND {low} < {most})",
    "gt": "{low} >= {most}",
    "sa": "{low} >= {most}",
    "lt": "{low} < {least}",
    "eb": "{low} < {least}",
    "ge": "{low} >= {least}",
    "le": "{low} < {most}",
    "ap": "({low} >= {least} AND {low} < {most})",
    "po": "({low} >= {least} AND {low} < {most})",
}


def date_clause(prefix: str, low: str, high: str, least: str, most: str) -> str:
    """Compare a stored date range [low, high) with a searched one."""
    return _HALF_OPEN[prefix].format(low=low, high=high, least=least, most=most)


def number_clause(prefix: str, low: str, high: str, least: str, most: str) -> str:
    """Compare a stored closed range of numbers with a searched one."""
    return _CLOSED[prefix].format(low=low, high=high, least=least, most=most)


def moment_clause(prefix: str, field: str, least: str, most: str) -> str:
    """Compare a stored moment with a searched range."""
    return _MOMENT[prefix].format(low=field, least=least, most=most)


def uses(prefix: str, dialect: str) -> tuple[bool, bool]:
    """Whether a prefix looks at the lower and at the upper end of the searched range."""
    clause = {"date_value": _HALF_OPEN, "number_value": _CLOSED, "moment": _MOMENT}[dialect][prefix]
    return "{least}" in clause, "{most}" in clause


def by_prefix(ranges: Iterable[Range]) -> dict[str, list[Range]]:
    """Group ranges by their prefix: each group is one comparison with arrays."""
    groups: dict[str, list[Range]] = {}
    for found in ranges:
        groups.setdefault(found.prefix, []).append(found)
    return groups


def main_date_clause(low: str, high: str, ranges: tuple[Range, ...], statement: Statement) -> str:
    """Compare the main date with any of the ranges; one range is inline, so that an index range can use it."""
    parts = []
    for prefix, group in by_prefix(ranges).items():
        if len(group) == 1:
            # A bound that the prefix does not use must not become a parameter without a place.
            names = {"least": "", "most": ""}
            for name, used, value in zip(names, uses(prefix, "date_value"), (group[0].low, group[0].high), strict=True):
                names[name] = statement.value(value, "bigint") if used else ""
            parts.append(date_clause(prefix, low, high, names["least"], names["most"]))
            continue
        alias = statement.alias("u")
        least = statement.value([found.low for found in group], "bigint[]")
        most = statement.value([found.high for found in group], "bigint[]")
        compared = date_clause(prefix, low, high, f"{alias}.least", f"{alias}.most")
        parts.append(f"EXISTS (SELECT FROM unnest({least}, {most}) AS {alias}(least, most) WHERE {compared})")
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"
