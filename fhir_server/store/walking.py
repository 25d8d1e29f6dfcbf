"""Pages of a search whose chain leads to very many resources: read in the order of the answer, follow each reference.

The index leads from a target to what refers to it, not back. When most targets match, it is cheaper to take the next
resources in order, read from their bytes what they refer to, and ask whether that matches, until the page is full.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson

from fhir_server.model.references import parse_reference
from fhir_server.search.conditions import AnyPosting, Chained, Condition, Keys, Selection, SortKey
from fhir_server.search.hashing import resource_key
from fhir_server.search.index import references_of
from fhir_server.search.parameters import type_base, type_parameters
from fhir_server.store.ordering import page_statement
from fhir_server.store.query import SelectionQuery
from fhir_server.store.statement import Statement

_FIRST = 200
_MOST = 2000


def unfollowed(selection: Selection) -> list[Chained]:
    """Return the chains of an arranged selection that were too large to become a list."""
    return [c for c in selection.conditions if isinstance(c, Chained) and not c.by_patient and c.code]


async def walk(
    connection: Any,
    selection: Selection,
    sort: tuple[SortKey, ...],
    cursor: tuple[object, ...] | None,
    limit: int,
    partition: tuple[int, int] | None,
) -> list[Any]:
    """Return the records of a page (see `page_statement`), read batch by batch."""
    chains = unfollowed(selection)
    rest: tuple[Condition, ...] = tuple(item for item in selection.conditions if item not in chains)
    if not rest:
        rest = (AnyPosting((type_base(selection.resource_type),)),)
    candidates = Selection(selection.resource_type, rest, arranged=True)
    found: list[Any] = []
    size = max(_FIRST, limit)
    while len(found) < limit:
        text, arguments = page_statement(candidates, sort, cursor, size, partition)
        records = await connection.fetch(text, *arguments)
        kept = records
        for chain in chains:
            kept = await _following(connection, selection.resource_type, chain, kept)
        found += kept
        if len(records) < size:
            break
        cursor = tuple(records[-1][f"k{number}"] for number in range(len(sort) + 1))
        size = min(size * 2, _MOST)
    return found[:limit]


async def _following(connection: Any, resource_type: str, chain: Chained, records: list[Any]) -> list[Any]:
    """Keep the records that refer to a match of one of the chain's targets."""
    parameter = type_parameters(resource_type).parameters[chain.code]
    referred: list[set[tuple[str, int]]] = []
    for record in records:
        references = references_of(orjson.loads(record["content"]), parameter, chain.own_url)
        parsed = [parse_reference(reference, chain.own_url) for reference in references]
        referred.append({(item[0], resource_key(*item)) for item in parsed if item is not None})
    matching: set[tuple[str, int]] = set()
    for target in chain.targets:
        name = target.resource_type
        keys = {key for pairs in referred for kind, key in pairs if kind == name}
        if keys:
            matching |= {(name, key) for key in await _matching(connection, target, keys)}
    return [record for record, pairs in zip(records, referred, strict=True) if not pairs.isdisjoint(matching)]


async def _matching(connection: Any, target: Selection, keys: Iterable[int]) -> list[int]:
    statement = Statement()
    query = SelectionQuery(
        replace(target, conditions=(Keys(tuple(keys)), *target.conditions), arranged=True), statement
    )
    text = f"SELECT {query.need_resource()}.key {query.text()}"
    return [record[0] for record in await connection.fetch(text, *statement.arguments)]
