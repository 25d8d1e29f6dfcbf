"""Parameters that shape the answer and select nothing: _count, _sort, _include, _total, _summary, _elements, cursor.

https://hl7.org/fhir/R4/search.html#return
"""

from __future__ import annotations

from itertools import pairwise

from fhir_server.search import paging
from fhir_server.search.conditions import Include, SearchRequest
from fhir_server.search.parameters import resource_types, type_parameters
from fhir_server.search.sorting import sort_keys
from fhir_server.settings import FhirSettings
from foramen.kernel.errors import InvalidRequestError

_IGNORED = {"_format", "_pretty"}
_TOTALS = {"none", "accurate", "estimate"}
_SUMMARIES = {"true", "false", "text", "data", "count"}
_BUCKETS = 1024
_MAX_PARTITIONS = 64


def apply(name: str, value: str, request: SearchRequest, settings: FhirSettings) -> bool:
    """Take one result parameter into the request; False when it is not one.

    Raises
    ------
    InvalidRequestError
        A value that the parameter does not have.
    """
    code, _, modifier = name.partition(":")
    if modifier and code in _PLAIN:
        raise InvalidRequestError(f"{code} takes no modifier", issue_code="not-supported")
    match code:
        case "_count":
            request.count = _count(value, settings)
            if request.count == 0:
                request.summary = "count"
        case "_sort":
            request.sort = sort_keys(request.selection.resource_type, value, settings.max_sort_keys)
        case "_include" | "_revinclude":
            if modifier not in ("", "iterate", "recurse"):
                raise InvalidRequestError(f"{code} has the modifier :iterate only", issue_code="not-supported")
            request.includes.append(
                include(value, request.selection.resource_type, reverse=code == "_revinclude", iterate=bool(modifier))
            )
            if len(request.includes) > settings.max_includes:
                raise InvalidRequestError("The search has too many includes", issue_code="too-costly")
        case "_total":
            request.total = _one_of(code, value, _TOTALS)
        case "_summary":
            request.summary = _one_of(code, value, _SUMMARIES)
        case "_elements":
            request.elements = _elements(value, request.selection.resource_type)
        case "_contained" | "_containedType":
            _one_of(code, value, {"false"} if code == "_contained" else {"container"})
        case "_partitions":
            request.partitions = _partitions(value)
        case "_partition":
            request.partition = _partition(value)
        case "_cursor":
            request.cursor = paging.decode(value)
            return True
        case _ if name in _IGNORED:
            return True
        case _:
            return False
    request.echo.append((name, value))
    return True


_PLAIN = frozenset(
    {"_count", "_sort", "_total", "_summary", "_elements", "_contained", "_containedType", "_partition", "_partitions"}
)


def _one_of(name: str, value: str, allowed: set[str]) -> str:
    if value not in allowed:
        raise InvalidRequestError(
            f"{name} must be one of {', '.join(sorted(allowed))}", issue_code="value", expression=(f"http.{name}",)
        )
    return value


def _count(value: str, settings: FhirSettings) -> int:
    if not value.isdecimal() or not value.isascii() or len(value) > 9:
        raise InvalidRequestError("_count is not a whole number", issue_code="value", expression=("http._count",))
    return min(int(value), settings.max_page_size)


def _elements(value: str, resource_type: str) -> tuple[str, ...]:
    """Names of elements; a name may be nested (``name.family``) and start with the resource type."""
    return tuple(item.strip().removeprefix(f"{resource_type}.") for item in value.split(",") if item.strip())


def _partitions(value: str) -> int:
    if not value.isdecimal() or not value.isascii() or len(value) > 3 or not 1 <= int(value) <= _MAX_PARTITIONS:
        raise InvalidRequestError(f"_partitions must lie between 1 and {_MAX_PARTITIONS}", issue_code="value")
    return int(value)


def _partition(value: str) -> tuple[int, int]:
    first, dash, last = value.partition("-")
    if not dash or not all(part.isdecimal() and part.isascii() and len(part) <= 4 for part in (first, last)):
        raise InvalidRequestError("_partition is not one that this server made", issue_code="value")
    bounds = int(first), int(last)
    if not 0 <= bounds[0] <= bounds[1] < _BUCKETS:
        raise InvalidRequestError("_partition is not one that this server made", issue_code="value")
    return bounds


def partition_bounds(count: int) -> list[tuple[int, int]]:
    """Return `count` disjoint ranges of row buckets that cover all of them."""
    edges = [_BUCKETS * place // count for place in range(count + 1)]
    return [(low, high - 1) for low, high in pairwise(edges)]


def include(value: str, resource_type: str, *, reverse: bool, iterate: bool) -> Include:
    """Parse one `_include` or `_revinclude`: ``Type:parameter[:Type]``, ``Type:*`` or ``*``.

    Raises
    ------
    InvalidRequestError
        Another form, an unknown type, or a parameter that is no reference.
    """
    name = "_revinclude" if reverse else "_include"
    parts = value.split(":")
    if value == "*":
        parts = ["*" if reverse or iterate else resource_type, "*"]
    source, code = parts[0], parts[1] if len(parts) > 1 else ""
    if not 2 <= len(parts) <= 3 or (source not in resource_types() and source != "*"):
        raise InvalidRequestError(
            f"{name} needs the form Type:parameter[:Type]", issue_code="value", expression=(f"http.{name}",)
        )
    target = parts[2] if len(parts) == 3 else None
    if target is not None and target not in resource_types():
        raise InvalidRequestError(f"{name} names an unknown resource type", issue_code="value")
    if code != "*":
        parameter = type_parameters(source).parameters.get(code) if source != "*" else None
        if parameter is None or parameter.kind != "reference":
            raise InvalidRequestError(
                f"{name} names no reference parameter of {source}", issue_code="value", expression=(f"http.{name}",)
            )
    return Include(source, code, target, reverse, iterate)
