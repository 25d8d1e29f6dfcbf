"""`_explain`: for administrators, what a search does instead of what it finds. docs/api/explain.md.

It shows conditions, the statement and PostgreSQL's plan without a single value, and how many matches the access rules
of this very token took away. Audited as a search, like any other.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from fhir_server.search.conditions import SearchRequest
from fhir_server.server import Call
from fhir_server.store import explaining
from fhir_server.store.page_shapes import PageQuestion
from foramen.kernel.errors import InvalidRequestError

NAME = "_explain"
_VALUES = ("true", "analyze")
Pairs = list[tuple[str, str]]


def wants(call: Call, pairs: Pairs) -> str:
    """Return ``true``, ``analyze``, or an empty text when no explanation is asked for.

    Raises
    ------
    ForbiddenError
        The token lacks the scope `foramen/admin`.
    """
    given = [value for name, value in pairs if name == NAME]
    if not given or given == ["false"]:
        return ""
    call.access.context.require_administrator()
    if given[-1] not in _VALUES:
        raise InvalidRequestError(f"{NAME} must be true or analyze", issue_code="value", expression=(f"http.{NAME}",))
    return given[-1]


def without(pairs: Pairs) -> Pairs:
    """Return the search itself."""
    return [(name, value) for name, value in pairs if name != NAME]


async def explain(
    call: Call, connection: Any, requests: list[SearchRequest], mode: str, question: PageQuestion | None = None
) -> bytes:
    """Explain parsed searches (one for each type) as a Parameters resource.

    Parameters
    ----------
    question : what the search would ask together with others of its shape
    """
    if not requests:
        raise InvalidRequestError("There is nothing to search", issue_code="value")
    parts: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for name, _ in requests[0].echo):
        parts.append(_parameter(name, "used"))
    parts += [_parameter(name, "ignored") for name in requests[0].unknown]
    for request in requests:
        total, removed = await explaining.removed_by_access(connection, request.selection, call.access, "s")
        parts.append(_selection(request, total, removed))
    text, plan = await explaining.explain(connection, requests, question, analyze=mode == "analyze")
    root = plan[0]["Plan"]
    parts += [
        {"name": "sql", "valueString": re.sub(r"\s+", " ", text)},
        {"name": "cost", "valueDecimal": root["Total Cost"]},
        {"name": "rows", "valueInteger": int(root["Plan Rows"])},
        {"name": "plan", "valueString": orjson.dumps(plan).decode()},
    ]
    return orjson.dumps({"resourceType": "Parameters", "parameter": parts})


def _parameter(name: str, status: str) -> dict[str, Any]:
    shown = re.sub(r"[^A-Za-z0-9_:.-]", "", name)[:120]
    return {
        "name": "parameter",
        "part": [{"name": "name", "valueString": shown}, {"name": "status", "valueCode": status}],
    }


def _selection(request: SearchRequest, total: int, removed: list[tuple[str, str, int]]) -> dict[str, Any]:
    selection = request.selection
    parts: list[dict[str, Any]] = [
        {"name": "type", "valueCode": selection.resource_type},
        {"name": "matches", "valueInteger": total},
    ]
    for condition in selection.conditions:
        text = orjson.dumps(explaining.shape_of(condition)).decode()
        parts.append({"name": "condition", "valueString": text})
    for resource_type, rule, number in removed:
        parts.append(
            {
                "name": "access",
                "part": [
                    {"name": "type", "valueCode": resource_type},
                    {"name": "rule", "valueString": rule},
                    {"name": "removed", "valueInteger": number},
                ],
            }
        )
    return {"name": "selection", "part": parts}
