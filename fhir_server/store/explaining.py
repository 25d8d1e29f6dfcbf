"""What a search would do: its statement, PostgreSQL's plan without any value in it, and what access rules take away.

https://www.postgresql.org/docs/current/sql-explain.html
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import orjson

from fhir_server.access.policy import Access
from fhir_server.search.conditions import AllOf, Condition, SearchRequest, Selection
from fhir_server.store import searching, searching_types
from fhir_server.store.chain_pages import is_answer
from fhir_server.store.page_shapes import PageQuestion

_SHOWN = {
    "Node Type", "Join Type", "Relation Name", "Index Name", "Alias", "Scan Direction", "Strategy",
    "Parent Relationship",
    "Startup Cost", "Total Cost", "Plan Rows", "Plan Width", "Actual Rows", "Actual Loops", "Actual Startup Time",
    "Actual Total Time", "Rows Removed by Filter", "Rows Removed by Index Recheck", "Shared Hit Blocks",
    "Shared Read Blocks", "Sort Method", "Sort Space Used", "Planning Time", "Execution Time",
}  # fmt: skip
"""Keys of a plan that can hold no value of the search or of the record; conditions and sort keys are left out."""
_TEXTS = {"table", "resource_type", "own_type", "field"}
"""Fields of a condition whose text is a name of ours."""


def shape_of(item: Any) -> Any:
    """Describe a condition without its values: its kind, how many values, what is nested in it."""
    if is_dataclass(item) and not isinstance(item, type):
        found: dict[str, Any] = {"is": type(item).__name__}
        for field in fields(item):
            value = getattr(item, field.name)
            if isinstance(value, bool):
                if value:
                    found[field.name] = True
            elif isinstance(value, Enum):
                found[field.name] = value.name
            elif field.name == "prefix" or (isinstance(value, str) and field.name in _TEXTS and value):
                found[field.name] = value
            elif isinstance(value, tuple) and value:
                nested = [shape_of(part) for part in value if is_dataclass(part) or isinstance(part, tuple)]
                found[field.name] = nested or len(value)
            elif is_dataclass(value):
                found[field.name] = shape_of(value)
        return found
    if isinstance(item, tuple):
        return [shape_of(part) for part in item if is_dataclass(part) or isinstance(part, tuple)]
    return None


def plan_of(node: Any) -> Any:
    """Keep of PostgreSQL's plan what holds no value."""
    if isinstance(node, list):
        return [plan_of(item) for item in node]
    kept = {name: value for name, value in node.items() if name in _SHOWN}
    if "Plan" in node:
        kept["Plan"] = plan_of(node["Plan"])
    if "Plans" in node:
        kept["Plans"] = plan_of(node["Plans"])
    return kept


async def explain(
    connection: Any, requests: list[SearchRequest], question: PageQuestion | None, *, analyze: bool
) -> tuple[str, Any]:
    """Return the statement with its placeholders, and PostgreSQL's plan.

    Parameters
    ----------
    question : what the search would ask together with others of its shape; here it is asked alone
    analyze : carry the statement out, for real row counts and times
    """
    statement = await _shared(connection, question) if question is not None else None
    text, arguments = statement or await searching_types.types_statement(connection, requests)
    options = "FORMAT JSON, ANALYZE, BUFFERS" if analyze else "FORMAT JSON"
    found = await connection.fetchval(f"EXPLAIN ({options}) {text}", *arguments)
    return text, plan_of(orjson.loads(found) if isinstance(found, str | bytes) else found)


async def _shared(connection: Any, question: PageQuestion) -> tuple[str, list[Any]] | None:
    """Return the statement of a question, unless the search would have to be arranged after all."""
    text, arguments = question.statement.text, question.columns()
    records = await connection.fetch(text, *arguments)
    return (text, arguments) if is_answer(question, records) else None


async def removed_by_access(
    connection: Any, selection: Selection, access: Access, action: str
) -> tuple[int, list[tuple[str, str, int]]]:
    """Return the number of matches, and (type, rule, matches taken away by it alone) of each access rule.

    A rule may bound the matches themselves or what a chain leads through.
    """
    total = await searching.count(connection, selection)
    found: list[tuple[str, str, int]] = []
    for resource_type in sorted(_types(selection)):
        if not access.may(resource_type, action):
            continue
        for name, rule in _rules(access, resource_type, action):
            without = _without(selection, resource_type, access.condition(resource_type, action), rule)
            if without != selection:
                found.append((resource_type, name, await searching.count(connection, without) - total))
    return total, found


def _rules(access: Access, resource_type: str, action: str) -> list[tuple[str, Condition]]:
    return access.rules(resource_type, action)


def _types(item: Any) -> set[str]:
    """Types of all selections in a condition."""
    found = {item.resource_type} if isinstance(item, Selection) else set()
    if is_dataclass(item) and not isinstance(item, type):
        for field in fields(item):
            found |= _types(getattr(item, field.name))
    elif isinstance(item, tuple):
        for part in item:
            found |= _types(part)
    return found


def _without(item: Any, resource_type: str, whole: Condition | None, rule: Condition) -> Any:
    """Return the same without one access rule of one type, wherever a selection of that type stands."""
    if isinstance(item, tuple):
        return tuple(_without(part, resource_type, whole, rule) for part in item)
    if not is_dataclass(item) or isinstance(item, type):
        return item
    changed = {
        field.name: _without(getattr(item, field.name), resource_type, whole, rule)
        for field in fields(item)
        if field.init
    }
    if isinstance(item, Selection) and item.resource_type == resource_type:
        kept: list[Condition] = []
        for condition in changed["conditions"]:
            if condition != whole:
                kept.append(condition)
            elif isinstance(whole, AllOf):
                kept += [part for part in whole.conditions if part != rule]
        changed["conditions"] = tuple(kept)
    return type(item)(**changed)
