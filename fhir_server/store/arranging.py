"""Decide how a selection is worked on before its statement is written: chains first, then the most selective source.

- A chain (and `_has`) is asked from the inside: the inner selection is read up to a bound and becomes a list of keys.
  What has more matches than the bound is unselective, and is then looked up for each row of the outer selection.
- Patient and code together become pairs, which have postings of their own.
- Where several conditions could be the source of rows, each is counted up to a bound; counts are kept for a while.

So the work is bounded by what was counted and not by the planner's guesses about parameters it has not seen.
ADR 0014 has the reasons and figures.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import orjson

from fhir_server.model.references import parse_reference
from fhir_server.search.conditions import (
    AllOf,
    AnyOf,
    AnyPosting,
    Chained,
    Condition,
    InInstitution,
    Keys,
    LastUpdated,
    Not,
    Nothing,
    NumberPair,
    Pairs,
    RangeValues,
    ReverseChained,
    Role,
    Selection,
    StringPattern,
    StringValues,
)
from fhir_server.search.hashing import resource_key
from fhir_server.search.index import references_of
from fhir_server.search.parameters import patient_code_base, type_base, type_parameters
from fhir_server.store.canonical_chains import MAX_READ, canonical_sources, canonical_targets, contents_of
from fhir_server.store.query import SelectionQuery, is_source, last_updated_clause, opened, usual_rank
from fhir_server.store.statement import Statement
from fhir_server.store.value_tables import row_sources

MAX_KEYS = 5000
"""Most resources a chain may lead to, or come from, and still be resolved to a list."""
MAX_PATIENTS = 1000
"""The same for patients: there the other way, to look at each row's own patient, is cheap as well."""
MAX_PAIRS = 5000
_ENOUGH = 2000
"""Counting stops here: a condition with more matches is unselective."""
_KEPT_S = 60.0
_MOST_KEPT = 20_000
_VALUES = RangeValues | NumberPair | StringValues | StringPattern
_counts: dict[tuple[str, Condition], tuple[float, int]] = {}


async def arrange(connection: Any, selection: Selection, *, in_order: bool = False) -> Selection:
    """Return an equal selection, arranged.

    Parameters
    ----------
    in_order : the first matches by main date are wanted, so that reading the type in that order and stopping early is
        better than collecting everything an unselective condition holds
    """
    at_once = arranged_at_once(selection, in_order=in_order)
    if at_once is not None:
        return at_once
    conditions = [
        await _resolve(connection, selection.resource_type, item) if _leads_elsewhere(item) else item
        for item in opened(selection.conditions)
    ]
    conditions = paired(selection.resource_type, about_one(conditions))
    conditions.sort(key=usual_rank)
    if needs_counts(conditions):
        conditions = await _by_count(connection, selection.resource_type, conditions, in_order=in_order)
    return Selection(selection.resource_type, tuple(conditions), arranged=True)


def arranged_at_once(selection: Selection, *, in_order: bool = False) -> Selection | None:
    """Return an equal selection, arranged, when that needs no look into the database; else None.

    Counts of before that are still kept need none: a search that comes again can be asked with others of its shape.
    """
    if selection.arranged:
        return selection
    conditions = list(opened(selection.conditions))
    if any(map(_leads_elsewhere, conditions)):
        return None
    conditions = paired(selection.resource_type, about_one(conditions))
    conditions.sort(key=usual_rank)
    if needs_counts(conditions):
        counted = [condition for condition in conditions if _is_counted(condition)]
        counts = _kept(selection.resource_type, counted)
        if len(counts) < len(set(counted)):
            return None
        conditions = _ranked(selection.resource_type, conditions, counts, in_order=in_order)
    return Selection(selection.resource_type, tuple(conditions), arranged=True)


# Chains


def _leads_elsewhere(condition: Condition) -> bool:
    """Whether a condition asks something of other resources, which are looked for first."""
    match condition:
        case AnyOf(inner) | AllOf(inner):
            return any(map(_leads_elsewhere, inner))
        case Not(negated):
            return _leads_elsewhere(negated)
    return isinstance(condition, Chained | ReverseChained)


async def _resolve(connection: Any, resource_type: str, condition: Condition) -> Condition:
    match condition:
        case AnyOf(inner):
            return AnyOf(tuple([await _resolve(connection, resource_type, item) for item in inner]))
        case AllOf(inner):
            return AllOf(tuple([await _resolve(connection, resource_type, item) for item in inner]))
        case Not(negated):
            return Not(await _resolve(connection, resource_type, negated))
        case Chained():
            return await _resolve_chain(connection, condition)
        case ReverseChained():
            return await _resolve_reverse(connection, condition)
    return condition


async def _resolve_chain(connection: Any, chained: Chained) -> Condition:
    targets = tuple([await arrange(connection, target) for target in chained.targets])
    if chained.canonical:
        return await canonical_targets(connection, chained.bases, targets)
    most = MAX_PATIENTS if chained.by_patient else MAX_KEYS
    found: list[int] = []
    for target in targets:
        keys = await _keys(connection, target, most)
        if keys is None or len(found) + len(keys) > most:
            return replace(chained, targets=targets)
        found += keys
    if not found:
        return Nothing()
    bases = chained.bases
    hashes = tuple(base ^ key for base in bases for key in found)
    if chained.by_patient and len(bases) == 1:
        return AnyPosting(hashes, role=Role.PATIENT, base=bases[0])
    return AnyPosting(hashes)


async def _keys(connection: Any, selection: Selection, most: int) -> list[int] | None:
    """Return the keys of all matches, or None when there are more than `most`."""
    statement = Statement()
    query = SelectionQuery(selection, statement)
    text = (
        f"WITH i AS MATERIALIZED (SELECT {query.driver}.row {query.text()} LIMIT {most + 1})"
        f" SELECT CASE WHEN (SELECT count(*) FROM i) <= {most} THEN ARRAY(SELECT k.key FROM i CROSS JOIN LATERAL"
        f" (SELECT x.key FROM fhir.resource x WHERE x.row = i.row OFFSET 0) k) END"
    )
    found: list[int] | None = await connection.fetchval(text, *statement.arguments)
    return found


async def _resolve_reverse(connection: Any, chained: ReverseChained) -> Condition:
    source = await arrange(connection, chained.source)
    if chained.canonical:
        return await canonical_sources(connection, chained, source)
    keys = await (_patients if chained.by_patient else _referred)(connection, chained, source)
    if keys is None:
        return replace(chained, source=source)
    return Keys(tuple(keys)) if keys else Nothing()


async def _patients(connection: Any, chained: ReverseChained, source: Selection) -> list[int] | None:
    """Return the patients the source's resources belong to by one of the paths."""
    statement = Statement()
    query = SelectionQuery(source, statement)
    driver, bases = query.driver, statement.value(list(chained.bases), "bigint[]")
    text = (
        f"WITH i AS MATERIALIZED (SELECT {driver}.low, {driver}.row {query.text()} LIMIT {MAX_KEYS + 1})"
        f" SELECT CASE WHEN (SELECT count(*) FROM i) <= {MAX_KEYS} THEN ARRAY(SELECT DISTINCT k.key FROM i"
        f" CROSS JOIN LATERAL (SELECT x.patients FROM fhir.resource x WHERE x.row = i.row OFFSET 0) r"
        f" CROSS JOIN unnest(r.patients) AS k(key) WHERE EXISTS (SELECT FROM unnest({bases}) AS b(path)"
        f" JOIN fhir.posting l ON l.hash = b.path # k.key AND l.low = i.low AND l.row = i.row OFFSET 0)) END"
    )
    found: list[int] | None = await connection.fetchval(text, *statement.arguments)
    return found


async def _referred(connection: Any, chained: ReverseChained, source: Selection) -> list[int] | None:
    """Return the keys of the resources to which the source's resources refer by the parameter, read from their bytes.

    A posting leads from a target to what refers to it and not back.
    """
    contents = await contents_of(connection, source, MAX_READ)
    if contents is None:
        return None
    parameter = type_parameters(source.resource_type).parameters[chained.code]
    keys: set[int] = set()
    for content in contents:
        for reference in references_of(orjson.loads(content), parameter, chained.own_url):
            parsed = parse_reference(reference, chained.own_url)
            if parsed is not None and parsed[0] == chained.own_type:
                keys.add(resource_key(*parsed))
    return list(keys)


# One patient


def about_one(conditions: list[Condition]) -> list[Condition]:
    """Tell the institution wall of the one patient whose record is searched: its institution is looked at once."""
    if not any(isinstance(item, InInstitution) for item in conditions):
        return conditions
    named = [
        item.hashes[0] ^ item.base
        for item in conditions
        if isinstance(item, AnyPosting) and item.role is Role.PATIENT and len(item.hashes) == 1 and not item.negated
    ]
    if not named:
        return conditions
    return [replace(item, asked=(named[0],)) if isinstance(item, InInstitution) else item for item in conditions]


# Pairs


def paired(resource_type: str, conditions: list[Condition]) -> list[Condition]:
    """Answer "these patients, these codes" from the index made for such pairs.

    A posting is path XOR value, so the value's hash comes out again by XOR with the path.
    """
    code = patient = None
    for item in conditions:
        if isinstance(item, AnyPosting) and not item.negated:
            if item.role is Role.CODE:
                code = code or item
            elif item.role is Role.PATIENT:
                patient = patient or item
    if code is None or patient is None:
        return conditions
    if len(code.hashes) * len(patient.hashes) > MAX_PAIRS:
        return conditions
    rest = [item for item in conditions if item is not code and item is not patient]
    base = patient_code_base(resource_type) ^ patient.base ^ code.base
    pairs = [(base ^ who ^ what, who) for who in patient.hashes for what in code.hashes]
    if len(pairs) == 1:
        return [AnyPosting((pairs[0][0],), role=Role.SELECTIVE), AnyPosting(patient.hashes), *rest]
    return [Pairs(tuple(pair for pair, _ in pairs), tuple(who for _, who in pairs)), *rest]


# Counts


def needs_counts(conditions: list[Condition]) -> bool:
    """Whether the source is not clear without a look: nothing names one thing, and there is a choice."""
    if not conditions or usual_rank(conditions[0]) <= 3:
        return False
    sources = sum(1 for condition in conditions if _is_counted(condition))
    only_values = isinstance(conditions[0], _VALUES | LastUpdated | Chained | AnyOf)
    return sources > 1 or only_values


def _is_counted(condition: Condition) -> bool:
    if isinstance(condition, AnyOf):
        return is_source(condition)
    return isinstance(condition, _VALUES | LastUpdated) or (isinstance(condition, AnyPosting) and not condition.negated)


async def _by_count(
    connection: Any, resource_type: str, conditions: list[Condition], *, in_order: bool
) -> list[Condition]:
    counted = [condition for condition in conditions if _is_counted(condition)]
    counts = await _count(connection, resource_type, counted)
    return _ranked(resource_type, conditions, counts, in_order=in_order)


def _ranked(
    resource_type: str, conditions: list[Condition], counts: dict[Condition, int], *, in_order: bool
) -> list[Condition]:
    ranked = sorted(conditions, key=lambda c: (counts.get(c, _ENOUGH + 2), usual_rank(c)))
    first = ranked[0]
    unselective = counts.get(first, _ENOUGH + 1) > _ENOUGH
    posting = next((c for c in ranked if isinstance(c, AnyPosting) and not c.negated), None)
    if unselective and posting is not None and (in_order or not isinstance(first, AnyPosting)):
        # A posting lies in the order of the answer; rows found elsewhere would all have to be sorted.
        ranked.remove(posting)
        return [posting, *ranked]
    if unselective and (in_order or isinstance(first, Chained)):
        return [AnyPosting((type_base(resource_type),)), *ranked]
    return ranked


def _kept(resource_type: str, conditions: list[Condition]) -> dict[Condition, int]:
    """Return the counts that are still good."""
    now = time.monotonic()
    kept = {c: _counts.get((resource_type, c), (0.0, 0)) for c in conditions}
    return {c: count for c, (until, count) in kept.items() if until > now}


async def _count(connection: Any, resource_type: str, conditions: list[Condition]) -> dict[Condition, int]:
    now = time.monotonic()
    found = _kept(resource_type, conditions)
    missing = [c for c in conditions if c not in found]
    if missing:
        statement = Statement()
        parts = [
            f"(SELECT count(*) FROM (SELECT FROM ({_rows(c, resource_type, statement)}) n LIMIT {_ENOUGH + 1}) m)"
            for c in missing
        ]
        record = await connection.fetchrow(f"SELECT {', '.join(parts)}", *statement.arguments)
        if len(_counts) + len(missing) > _MOST_KEPT:
            _counts.clear()
        for condition, count in zip(missing, record, strict=True):
            found[condition] = count
            _counts[resource_type, condition] = now + _KEPT_S, count
    return found


def _rows(condition: Condition, resource_type: str, statement: Statement) -> str:
    if isinstance(condition, AnyPosting):
        return f"SELECT FROM fhir.posting WHERE hash = ANY({statement.value(list(condition.hashes), 'bigint[]')})"
    if isinstance(condition, LastUpdated):
        updated = last_updated_clause(condition, "updated", statement)
        return f"SELECT FROM fhir.resource WHERE type = {statement.value(resource_type, 'text')} AND {updated}"
    if isinstance(condition, AnyOf):
        return SelectionQuery(Selection(resource_type, (condition,), arranged=True), statement).rows()
    assert isinstance(condition, _VALUES)  # noqa: S101 - see _is_counted
    return row_sources(condition, statement, distinct=False)
