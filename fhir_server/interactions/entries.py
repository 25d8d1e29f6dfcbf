"""Read the entries of a batch or transaction Bundle into operations.

https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import fhirkit
import msgspec
import orjson

from fhir_server.interactions.operations import (
    Operation,
    check_identity,
    check_type,
    check_writable,
    parse_etag,
    parse_if_none_match,
    placed,
)
from fhir_server.model.resource import Resource, load_json, plain
from fhir_server.model.validation import check_limits, fhirkit_issues, rule_issues
from fhir_server.patching.patch import JSON_PATCH, Patch, parse_patch
from fhir_server.server import Server
from foramen.kernel.errors import InteropError, InvalidRequestError, InvalidResourceError, Issue

_CONDITIONS = ("ifMatch", "ifModifiedSince", "ifNoneExist", "ifNoneMatch")
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
    if_modified_since: str | None = None
    fault: InteropError | None = None


def parse_bundle(body: bytes, server: Server) -> tuple[str, list[Entry]]:
    """Parse a Bundle; returns its type and its entries.

    Raises
    ------
    InvalidRequestError
        Not a batch or transaction Bundle, or larger than the limit.
    """
    body = plain(body)
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
    full_urls: set[str] = set()
    for place, item in enumerate(items):
        try:
            entry = _entry(place, item, bytes(raw[place].resource), server)
            if place in faults:
                entry.fault = _invalid(faults[place])
            if entry.operation is not None:
                _check_full_url(entry.operation, full_urls)
        except InteropError as exc:
            entry = Entry(place, fault=at_entry(place, exc))
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


def at_entry(place: int, error: InteropError) -> InteropError:
    """Say in which entry the fault lies, unless it says so already."""
    return placed(error, f"Bundle.entry[{place}]")


def _check_full_url(operation: Operation, seen: set[str]) -> None:
    """Refuse a fullUrl that two entries have: a reference to it could mean either (constraint bdl-7)."""
    if operation.full_url is None:
        return
    if operation.full_url in seen:
        where = (f"{operation.place}.fullUrl",)
        raise InvalidRequestError("Another entry has the same fullUrl", issue_code="duplicate", expression=where)
    seen.add(operation.full_url)


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
    for name in _CONDITIONS:
        if not isinstance(request.get(name), str | None):
            where = (f"Bundle.entry[{place}].request.{name}",)
            raise InvalidRequestError("A condition is a text", issue_code="structure", expression=where)
    method, url = request["method"], request["url"]
    if url.startswith(server.own_url):
        url = url[len(server.own_url) :]
    url = url.lstrip("/")
    if method in ("GET", "HEAD"):
        since = request.get("ifModifiedSince")
        return Entry(place, method, url, if_none_match=request.get("ifNoneMatch"), if_modified_since=since)
    return Entry(place, method, url, operation=_operation(place, item, request, method, url, raw, server))


def _operation(
    place: int, item: dict[str, Any], request: dict[str, Any], method: str, url: str, raw: bytes, server: Server
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
        must_be_new=method == "PUT" and parse_if_none_match(request.get("ifNoneMatch")),
        query=request.get("ifNoneExist") if method == "POST" else (query or "?") if mark else None,
        full_url=full_url if isinstance(full_url, str) else None,
        place=f"Bundle.entry[{place}]",
    )
    if method == "PATCH":
        operation.patch = _patch(place, item, raw, server)
    elif method != "DELETE":
        operation.resource = _resource(place, item, raw, server)
    check_identity(operation)
    return operation


def _resource(place: int, item: dict[str, Any], raw: bytes, server: Server) -> Resource:
    data = item.get("resource")
    if not isinstance(data, dict) or not isinstance(data.get("resourceType"), str):
        where = (f"Bundle.entry[{place}].resource",)
        raise InvalidRequestError("The entry needs a resource", issue_code="required", expression=where)
    resource_type = data["resourceType"]
    resource = Resource(resource_type, raw, data)
    check_limits(resource, server.limits)
    ignore_id = item["request"]["method"] == "POST"
    issues = rule_issues(data, resource_type, raw, ignore_id=ignore_id)
    if issues:
        prefix = f"Bundle.entry[{place}].resource"
        placed = tuple(
            Issue(i.issue_code, i.diagnostics, tuple(e.replace(resource_type, prefix, 1) for e in i.expression))
            for i in issues
        )
        raise InvalidResourceError("The entry is not valid", issue_code=placed[0].issue_code, issues=placed)
    return resource


def _patch(place: int, item: dict[str, Any], raw: bytes, server: Server) -> Patch:
    """Read the patch of an entry: a Binary with a JSON Patch, or Parameters (http.html#transaction, patch)."""
    data = item.get("resource")
    kind = data.get("resourceType") if isinstance(data, dict) else None
    try:
        if kind == "Parameters":
            return parse_patch(raw, server.limits, is_json_patch=False)
        if isinstance(data, dict) and kind == "Binary" and data.get("contentType") == JSON_PATCH:
            content = base64.b64decode(data.get("data", ""), validate=True)
            return parse_patch(content, server.limits, is_json_patch=True)
    except (ValueError, TypeError) as exc:
        raise InvalidRequestError("Binary.data is not base64", issue_code="value") from exc
    where = (f"Bundle.entry[{place}].resource",)
    text = f"A PATCH entry needs a Binary of contentType {JSON_PATCH}, or Parameters"
    raise InvalidRequestError(text, issue_code="not-supported", expression=where)


def outcome_bytes(error: InteropError) -> bytes:
    """OperationOutcome of an entry."""
    from foramen.kernel.outcome import operation_outcome

    return orjson.dumps(operation_outcome(error.issues))
