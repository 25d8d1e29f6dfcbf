"""Chains over canonical URLs: a reference names its target by `url`, or by `url|version`.

What one side of the chain matches is read (up to a bound), and the other side is asked for those URLs.
https://hl7.org/fhir/R4/references.html#canonical
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from typing import Any

import orjson

from fhir_server.model.references import parse_reference
from fhir_server.search.conditions import (
    AllOf,
    AnyOf,
    AnyPosting,
    Condition,
    Nothing,
    ReverseChained,
    Selection,
    StringValues,
)
from fhir_server.search.hashing import hash64
from fhir_server.search.index import references_of
from fhir_server.search.parameters import type_parameters
from fhir_server.search.strings import equal_range
from fhir_server.search.values import MAX_STRING, token_hashes
from fhir_server.store.query import SelectionQuery
from fhir_server.store.statement import Statement
from foramen.kernel.errors import InvalidRequestError

MAX_READ = 1000
"""Most resources whose bytes are read to follow a chain."""


async def contents_of(connection: Any, selection: Selection, most: int) -> list[bytes] | None:
    """Return the bytes of all matches, or None when there are more than `most`."""
    statement = Statement()
    query = SelectionQuery(selection, statement)
    limit = statement.value(most + 1, "bigint")
    text = (
        f"WITH i AS MATERIALIZED (SELECT {query.driver}.row {query.text()} LIMIT {limit})"
        f" SELECT r.content FROM i CROSS JOIN LATERAL"
        f" (SELECT x.content FROM fhir.resource x WHERE x.row = i.row OFFSET 0) r WHERE (SELECT count(*) FROM i) < "
        f"{limit}"
    )
    records = await connection.fetch(text, *statement.arguments)
    if records:
        return [record[0] for record in records]
    found = await connection.fetchval(f"SELECT EXISTS (SELECT {query.text()})", *statement.arguments[:-1])
    return None if found else []


def _too_many() -> InvalidRequestError:
    return InvalidRequestError(
        f"A chain through canonical URLs leads over more than {MAX_READ} resources", issue_code="too-costly"
    )


async def canonical_targets(connection: Any, bases: tuple[int, ...], targets: tuple[Selection, ...]) -> Condition:
    """Return the condition: refers to the URL, with their version or none, of what the targets match.

    Raises
    ------
    InvalidRequestError
        `too-costly`: more targets than are read.
    """
    names: set[str] = set()
    for target in targets:
        contents = await contents_of(connection, target, MAX_READ)
        if contents is None:
            raise _too_many()
        for content in contents:
            data = orjson.loads(content)
            if url := data.get("url"):
                names.add(url)
                if version := data.get("version"):
                    names.add(f"{url}|{version}")
    if not names:
        return Nothing()
    return StringValues(bases, tuple(equal_range(name[:MAX_STRING]) for name in sorted(names)))


async def canonical_sources(connection: Any, chained: ReverseChained, source: Selection) -> Condition:
    """Return the condition: has a URL (and version) that one of the source's matches refers to.

    Raises
    ------
    InvalidRequestError
        `too-costly`: more sources than are read.
    """
    contents = await contents_of(connection, source, MAX_READ)
    if contents is None:
        raise _too_many()
    parameter = type_parameters(source.resource_type).parameters[chained.code]
    names = {
        reference
        for content in contents
        for reference in references_of(orjson.loads(content), parameter, chained.own_url)
        if parse_reference(reference, chained.own_url) is None
    }
    table = type_parameters(chained.own_type).parameters
    urls, version = table["url"].bases(), table.get("version")
    plain = tuple(base ^ hash64(name) for name in sorted(names) if "|" not in name for base in urls)
    found: list[Condition] = [AnyPosting(plain)] if plain else []
    for name in sorted(names):
        url, bar, wanted = name.partition("|")
        if bar and version is not None:
            has_version = tuple(base ^ token_hashes(None, wanted)[0] for base in version.bases())
            found.append(AllOf((AnyPosting(tuple(base ^ hash64(url) for base in urls)), AnyPosting(has_version))))
    if not found:
        return Nothing()
    return found[0] if len(found) == 1 else AnyOf(tuple(found))
