"""Query and header parameters of interactions and operations, as the OpenAPI page lists them.

https://hl7.org/fhir/R4/http.html#parameters, https://hl7.org/fhir/R4/search.html#Summary
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_INSTANT = {"type": "string", "examples": ["2026-01-31T08:00:00Z"]}


def _query(name: str, text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema or _TEXT}


def _header(name: str, text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": text, "schema": schema or _TEXT}


_SUMMARY = _query("_summary", "Part of the resource", {"type": "string", "enum": ["true", "false", "text", "data"]})
_ELEMENTS = _query("_elements", "Names of elements, joined by commas")
_IF_MATCH = _header("If-Match", "Only when this is the current version", {"type": "string", "examples": ['W/"1"']})
_PREFER = _header(
    "Prefer",
    "What to answer",
    {"type": "string", "enum": ["return=minimal", "return=representation", "return=OperationOutcome"]},
)
_SEARCH = [
    _query("_count", "Matches of a page", _COUNT),
    _query("_sort", "Search parameters to sort by, joined by commas, - for descending"),
    _query("_total", "Whether to count all matches", {"type": "string", "enum": ["none", "estimate", "accurate"]}),
    _query("_summary", "Part of each match", {"type": "string", "enum": ["true", "false", "text", "data", "count"]}),
    _ELEMENTS,
    _query("_id", "Logical ids, joined by commas"),
    _query("_lastUpdated", "When the version was written", {"type": "string", "examples": ["ge2026-01-01"]}),
    _query("_include", "Also what the matches refer to: Type:parameter"),
    _query("_revinclude", "Also what refers to the matches: Type:parameter"),
]
_HISTORY = [
    _query("_count", "Versions of a page", _COUNT),
    _query("_since", "Only versions written at or after", _INSTANT),
    _query("_at", "Only versions that were current in this time", _INSTANT),
]
_RECORD = [
    _query("_since", "Only what was written at or after", _INSTANT),
    _query("_type", "Resource types, joined by commas"),
    _query("_count", "Matches of a page; without it everything comes in one Bundle", {"type": "integer", "minimum": 1}),
]
_BY_CAPABILITY: dict[str, list[dict[str, Any]]] = {
    "read": [_SUMMARY, _ELEMENTS, _header("If-None-Match", "Version that the client has")],
    "create": [_header("If-None-Exist", "Search; nothing is created when it has a match"), _PREFER],
    "update": [_IF_MATCH, _PREFER],
    "patch": [_IF_MATCH, _PREFER],
    "delete": [_IF_MATCH],
    "search-type": _SEARCH,
    "search-system": _SEARCH,
    "history-instance": _HISTORY,
    "history-type": _HISTORY,
    "history-system": _HISTORY,
}
_BY_OPERATION: dict[str, list[dict[str, Any]]] = {
    "everything": _RECORD,
    "lastn": [
        _query("max", "Observations of each code", {"type": "integer", "minimum": 1}),
        _query("patient", "Whose Observations"),
        _query("category", "Category of the Observations"),
        _query("code", "Codes of the Observations"),
    ],
}
_CARE_DATES = [
    _query("start", "Care dates from", {"type": "string", "examples": ["2026-01-01"]}),
    _query("end", "Care dates to", {"type": "string", "examples": ["2026-01-31"]}),
]


def parameters(path: str, method: str, capability: str, operation: str) -> list[dict[str, Any]]:
    """Return the query and header parameters of one route."""
    found = _BY_CAPABILITY.get(capability, [])
    if operation and method == "GET":
        found = _BY_OPERATION.get(operation, [])
        if operation == "everything" and path.startswith("Patient/"):
            found = [*_CARE_DATES, *found]
    return found
