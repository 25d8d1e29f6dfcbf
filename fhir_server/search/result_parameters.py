"""Parameters that shape the answer and select nothing: _count, _sort, _include, _total, _summary, _elements, cursor.

https://hl7.org/fhir/R4/search.html#return
"""

from __future__ import annotations

from fhir_server.search import paging
from fhir_server.search.conditions import Include, SearchRequest, SortKey, SortKind
from fhir_server.search.parameters import resource_types, type_parameters
from fhir_server.settings import FhirSettings
from foramen.kernel.errors import InvalidRequestError

_IGNORED = {"_format", "_pretty"}
_TOTALS = {"none", "accurate", "estimate"}
_SUMMARIES = {"true", "false", "text", "data", "count"}
_VALUE_TABLES = {"date": SortKind.DATE, "string": SortKind.STRING, "number": SortKind.NUMBER}


def apply(name: str, value: str, request: SearchRequest, settings: FhirSettings) -> bool:
    """Take one result parameter into the request; False when it is not one."""
    code, _, modifier = name.partition(":")
    match code:
        case "_count":
            request.count = _count(value, settings)
            if request.count == 0:
                request.summary = "count"
        case "_sort":
            request.sort = tuple(_sort_key(request.selection.resource_type, item) for item in value.split(",") if item)
        case "_include" | "_revinclude":
            request.includes.append(_include(value, reverse=code == "_revinclude", iterate=modifier == "iterate"))
        case "_total":
            request.total = _one_of(code, value, _TOTALS)
        case "_summary":
            request.summary = _one_of(code, value, _SUMMARIES)
        case "_elements":
            request.elements = tuple(item.strip().rpartition(".")[2] for item in value.split(",") if item.strip())
        case "_cursor":
            request.cursor = paging.decode(value)
            return True
        case _ if name in _IGNORED:
            return True
        case _:
            return False
    request.echo.append((name, value))
    return True


def _one_of(name: str, value: str, allowed: set[str]) -> str:
    if value not in allowed:
        raise InvalidRequestError(f"{name} must be one of {', '.join(sorted(allowed))}", issue_code="value")
    return value


def _count(value: str, settings: FhirSettings) -> int:
    if not value.isdecimal() or len(value) > 9:
        raise InvalidRequestError("_count is not a whole number", issue_code="value")
    return min(int(value), settings.max_page_size)


def _sort_key(resource_type: str, text: str) -> SortKey:
    descending, code = text.startswith("-"), text.removeprefix("-")
    if code == "_lastUpdated":
        return SortKey(SortKind.LAST_UPDATED, descending=descending)
    if code == "_id":
        return SortKey(SortKind.ID, descending=descending)
    parameters = type_parameters(resource_type)
    parameter = parameters.parameters.get(code)
    if parameter is None:
        raise InvalidRequestError("_sort names an unknown search parameter", issue_code="value")
    main = parameters.main_date
    if parameter.kind == "date" and main is not None and main.paths == parameter.paths:
        return SortKey(SortKind.MAIN_DATE, descending=descending)
    kind = _VALUE_TABLES.get(parameter.kind)
    if kind is None and parameter.kind == "quantity":
        kind = SortKind.NUMBER
    if kind is None:
        raise InvalidRequestError(f"_sort by a {parameter.kind} is not supported", issue_code="not-supported")
    return SortKey(kind, parameter.bases(), descending)


def _include(value: str, *, reverse: bool, iterate: bool) -> Include:
    parts = value.split(":")
    source = parts[0]
    if not 2 <= len(parts) <= 3 or source not in resource_types():
        raise InvalidRequestError("_include needs the form Type:parameter[:Type]", issue_code="value")
    target = parts[2] if len(parts) == 3 else None
    if target is not None and target not in resource_types():
        raise InvalidRequestError("_include names an unknown resource type", issue_code="value")
    parameter = type_parameters(source).parameters.get(parts[1])
    if parts[1] != "*" and (parameter is None or parameter.kind != "reference"):
        raise InvalidRequestError("_include names no reference parameter", issue_code="value")
    return Include(source, parts[1], target, reverse, iterate)
