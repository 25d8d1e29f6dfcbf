"""The institution of a record as SQL: the Patients a row belongs to, and whether their Organization is the asker's.

Nothing is stored for it: a row knows its patients (`resource.patients`), a Patient the Organization that manages it
(its posting), so a change of `managingOrganization` counts for the whole record with the next statement (ADR 0030).
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fhir_server.search.conditions import InInstitution

Value = Callable[[Any, str], str]
"""Writes the place of a value: (value, SQL type)."""


def patients_clause(condition: InInstitution, patients: str, value: Value, suffix: str = "") -> str:
    """Ask it of a list of patient keys.

    Parameters
    ----------
    patients : SQL of a ``bigint[]``
    suffix : makes the aliases unique in the statement
    """
    parts = [f"cardinality({patients}) = 0"] if condition.beyond else []
    if condition.patients:
        parts.append(f"{patients} && {value(list(condition.patients), 'bigint[]')}")
    if condition.managed:
        key = f"k{suffix}.key"
        parts.append(
            f"EXISTS (SELECT FROM unnest({patients}) AS k{suffix}(key)"
            f" CROSS JOIN LATERAL ({_is_managed(condition, key, value, suffix)}) i{suffix} OFFSET 0)"
        )
    return f"({' OR '.join(parts) or 'false'})"


def row_clause(condition: InInstitution, row: str, value: Value, suffix: str) -> str:
    """Ask it of a row of ``fhir.resource``; a patient that the whole search is about is looked at once, first."""
    inner = patients_clause(condition, f"o{suffix}.patients", value, suffix)
    of_row = f"EXISTS (SELECT FROM fhir.resource o{suffix} WHERE o{suffix}.row = {row} AND {inner} OFFSET 0)"
    if not condition.asked or not condition.managed:
        return of_row
    once = [
        f"(SELECT EXISTS ({_is_managed(condition, value(key, 'bigint'), value, f'{suffix}a{place}')}))"
        for place, key in enumerate(condition.asked)
    ]
    return f"({' OR '.join([*once, of_row])})"


def _is_managed(condition: InInstitution, key: str, value: Value, suffix: str) -> str:
    """Write: the Patient of this key has the institution's posting; a deleted one has none."""
    (managed,) = condition.managed
    return (
        f"SELECT FROM (SELECT y.low, y.row FROM fhir.resource y WHERE y.key = {key} OFFSET 0) y{suffix}"
        f" WHERE EXISTS (SELECT FROM fhir.posting m WHERE m.hash = {value(managed, 'bigint')}"
        f" AND m.low = y{suffix}.low AND m.row = y{suffix}.row OFFSET 0) OFFSET 0"
    )


_MANAGED = """SELECT y.key FROM fhir.resource y WHERE y.key = ANY($1)
AND EXISTS (SELECT FROM fhir.posting m WHERE m.hash = $2 AND m.low = y.low AND m.row = y.row OFFSET 0)"""


async def managed_patients(connection: Any, keys: Iterable[int], managed: int) -> set[int]:
    """Return which of these resources are Patients with the institution's posting now."""
    return {record[0] for record in await connection.fetch(_MANAGED, list(keys), managed)}
