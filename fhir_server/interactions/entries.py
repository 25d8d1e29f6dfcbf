"""Read the entries of a batch or transaction Bundle into operations.

https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import fhirkit
import msgspec
import orjson

from fhir_server.interactions.operations import Operation, check_identity, check_type, check_writable, parse_etag
from fhir_server.model.elements import element_issues
from fhir_server.model.resource import Resource, load_json
from fhir_server.model.validation import fhirkit_issues
from fhir_server.server import Server
from foramen.kernel.errors import InteropError, InvalidRequestError, InvalidResourceError, Issue

_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"}


class _RawEntry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"")


class _RawBundle(msgspec.Struct):
    entry: list[_RawEntry] = []


@dataclass(slots=True)
class Entry:
    """One entry: a write, or the URL of a read or search; `fault` when it cannot be carried out."""

    place: int
    method: str = ""
    url: str = ""
    operation: Operation | None = None
    if_none_match: str | None = None
    fault: InteropError | None = None


def parse_bundle(body: bytes, server: Server) -> tuple[str, list[Entry]]:
    """Parse a Bundle; returns its type and its entries.

    Raises
    ------
    InvalidRequestError
        Not a batch or transaction Bundle, or larger than the limit.
    """
    data = load_json(body, server.limits.max_depth)
    if data.get("resourceType") != "Bundle":
        raise InvalidRequestError("The body is not a Bundle", issue_code="structure", expression=("resourceType",))
    kind = data.get("type")
    if kind not in ("batch", "transaction"):
        raise InvalidRequestError(
            "Bundle.type must be batch or transaction", issue_code="value", expression=("Bundle.type",)
        )
    items = data.get("entry", [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidRequestError("Bundle.entry is not a list", issue_code="structure", expression=("Bundle.entry",))
    if len(items) > server.limits.max_bundle_entries:
        raise InvalidRequestError(
            "The Bundle has too many entries", issue_code="too-costly", expression=("Bundle.entry",)
        )
    faults = _structure_faults(body, kind, len(items))
    raw = msgspec.json.decode(body, type=_RawBundle).entry
    entries = []
    for place, item in enumerate(items):
        try:
            entry = _entry(place, item, bytes(raw[place].resource), server)
            if place in faults:
                entry.fault = _invalid(faults[place])
        except InteropError as exc:
            entry = Entry(place, fault=_at_entry(place, exc))
        entries.append(entry)
    return kind, entries


def _structure_faults(body: bytes, kind: str, count: int) -> dict[int, list[Issue]]:
    """Validate the whole Bundle at once and hand each fault to its entry; faults of the Bundle itself are raised."""
    try:
        issues = fhirkit_issues(body)
    except fhirkit.ParseError as exc:
        raise InvalidRequestError("The body is not valid JSON", issue_code="structure") from exc
    faults: dict[int, list[Issue]] = {}
    own: list[Issue] = []
    for issue in issues:
        path = issue.expression[0]
        head, _, rest = path.removeprefix("Bundle.entry[").partition("]")
        if path.startswith("Bundle.entry[") and rest and head.isdecimal() and int(head) < count:
            faults.setdefault(int(head), []).append(issue)
        else:
            own.append(issue)
    if own:
        raise InvalidRequestError("The Bundle is not valid", issue_code="structure", issues=own)
    return faults


def _invalid(issues: list[Issue]) -> InteropError:
    twice = [issue for issue in issues if "more than once" in issue.diagnostics]
    if twice:
        return InvalidRequestError("An element is given twice", issue_code="structure", issues=twice)
    return InvalidResourceError("The entry is not valid", issue_code=issues[0].issue_code, issues=issues)


def _at_entry(place: int, error: InteropError) -> InteropError:
    """Say in which entry the fault lies, unless it says so already."""
    where = f"Bundle.entry[{place}]"
    issues = tuple(
        Issue(
            issue.issue_code,
            issue.diagnostics,
            issue.expression if any(e.startswith("Bundle.entry[") for e in issue.expression) else (where,),
            issue.severity,
        )
        for issue in error.issues
    )
    return type(error)(error.message, issue_code=error.issue_code, issues=issues, headers=error.headers)


at_entry = _at_entry


def _entry(place: int, item: dict[str, Any], raw: bytes, server: Server) -> Entry:
    request = item.get("request")
    if (
        not isinstance(request, dict)
        or request.get("method") not in _METHODS
        or not isinstance(request.get("url"), str)
    ):
        where = (f"Bundle.entry[{place}].request",)
        raise InvalidRequestError(
            "The entry needs request.method and request.url", issue_code="required", expression=where
        )
    method, url = request["method"], request["url"]
    if url.startswith(server.own_url):
        url = url[len(server.own_url) :]
    url = url.lstrip("/")
    if method in ("GET", "HEAD"):
        return Entry(place, "GET", url, if_none_match=request.get("ifNoneMatch"))
    if method == "PATCH":
        raise InvalidRequestError("PATCH is not supported", issue_code="not-supported")
    return Entry(place, method, url, operation=_operation(place, item, request, method, url, raw))


def _operation(
    place: int, item: dict[str, Any], request: dict[str, Any], method: str, url: str, raw: bytes
) -> Operation:
    path, mark, query = url.partition("?")
    resource_type, _, logical_id = path.partition("/")
    check_type(resource_type)
    check_writable(resource_type, method)
    if method == "POST" and logical_id:
        raise InvalidRequestError("POST in an entry creates: its URL is a resource type", issue_code="value")
    if method != "POST" and not logical_id and not mark:
        raise InvalidRequestError("The entry's URL names no resource", issue_code="value")
    full_url = item.get("fullUrl")
    operation = Operation(
        method,
        resource_type,
        unquote(logical_id) or None,
        if_match=parse_etag(request.get("ifMatch")),
        must_be_new=method == "PUT" and request.get("ifNoneMatch") == "*",
        query=request.get("ifNoneExist") if method == "POST" else (query or "?") if mark else None,
        full_url=full_url if isinstance(full_url, str) else None,
        place=f"Bundle.entry[{place}]",
    )
    if method != "DELETE":
        operation.resource = _resource(place, item, raw)
    check_identity(operation)
    return operation


def _resource(place: int, item: dict[str, Any], raw: bytes) -> Resource:
    data = item.get("resource")
    if not isinstance(data, dict) or not isinstance(data.get("resourceType"), str):
        where = (f"Bundle.entry[{place}].resource",)
        raise InvalidRequestError("The entry needs a resource", issue_code="required", expression=where)
    resource_type = data["resourceType"]
    issues = element_issues(data, resource_type)
    if issues:
        prefix = f"Bundle.entry[{place}].resource"
        placed = tuple(
            Issue(i.issue_code, i.diagnostics, tuple(e.replace(resource_type, prefix, 1) for e in i.expression))
            for i in issues
        )
        raise InvalidResourceError("The entry is not valid", issue_code=placed[0].issue_code, issues=placed)
    return Resource(resource_type, raw, data)


def outcome_bytes(error: InteropError) -> bytes:
    """OperationOutcome of an entry."""
    from foramen.kernel.outcome import operation_outcome

    return orjson.dumps(operation_outcome(error.issues))
