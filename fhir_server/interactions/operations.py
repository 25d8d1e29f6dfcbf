"""One write a client asks for, with its conditions: create, update, patch or delete. Pure: read from request or entry.

https://hl7.org/fhir/R4/http.html#create, #update, #patch, #delete
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl

from fhir_server.model.references import LOGICAL_ID
from fhir_server.model.resource import Resource
from fhir_server.patching.patch import Patch
from fhir_server.search.parameters import resource_types
from foramen.kernel.errors import InteropError, InvalidRequestError, NotFoundError, NotSupportedError

_ETAG = re.compile(r'(?:W/)?"([0-9]{1,9})"|([0-9]{1,9})')
_ACTIONS = {"POST": "c", "PUT": "u", "PATCH": "u", "DELETE": "d"}
ANY_VERSION = 0
"""`If-Match: *`: any version, but there must be one."""
_READ_ONLY_ACTIONS = {"AuditEvent": "cr"}


@dataclass(slots=True)
class Operation:
    """One write. The `resource` of a PATCH is known only once the `patch` was applied to the locked version."""

    method: str
    resource_type: str
    logical_id: str | None = None
    resource: Resource | None = None
    patch: Patch | None = None
    if_match: int | None = None
    unmodified_since: datetime | None = None
    must_be_new: bool = False
    multiple: bool = False
    query: str | None = None
    full_url: str | None = None
    place: str = ""

    @property
    def action(self) -> str:
        """SMART action that allows it."""
        return _ACTIONS[self.method]

    @property
    def name(self) -> tuple[str, str]:
        """(type, id) of what is written; only after an id was given."""
        assert self.logical_id is not None  # noqa: S101
        return self.resource_type, self.logical_id

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.resource_type}/{self.logical_id}"

    def fresh(self) -> Operation:
        """Return a copy for another attempt (in a tenth of the time that `dataclasses.replace` takes)."""
        return Operation(
            self.method,
            self.resource_type,
            self.logical_id,
            self.resource,
            self.patch,
            self.if_match,
            self.unmodified_since,
            self.must_be_new,
            self.multiple,
            self.query,
            self.full_url,
            self.place,
        )


class at:
    """Say in which entry of a Bundle a fault lies."""

    __slots__ = ("_operation",)

    def __init__(self, operation: Operation) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, InteropError) and self._operation.place:
            raise placed(exc, self._operation.place) from exc


def placed(error: InteropError, where: str) -> InteropError:
    """Return the error with its place in a Bundle; an expression inside the entry's resource is kept behind it."""
    issues = tuple(replace(issue, expression=_placed(issue.expression, where)) for issue in error.issues)
    return type(error)(error.message, issue_code=error.issue_code, issues=issues, headers=error.headers)


def _placed(expression: tuple[str, ...], where: str) -> tuple[str, ...]:
    if any(item.startswith("Bundle.entry[") for item in expression):
        return expression
    inside = [item.partition(".")[2] for item in expression if item[:1].isupper() and "." in item]
    return tuple(f"{where}.resource.{item}" for item in inside) or (where,)


@dataclass(slots=True)
class Result:
    """What became of an operation: an HTTP status and the version that stands."""

    status: int
    resource_type: str
    logical_id: str
    version: int | None
    updated: Any
    content: bytes | None

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.resource_type}/{self.logical_id}"


def parse_etag(header: str | None) -> int | None:
    """Version id of an If-Match header; `ANY_VERSION` for ``*``, None without one.

    Raises
    ------
    InvalidRequestError
        Not an entity tag of ours.
    """
    if header is None:
        return None
    if header.strip() == "*":
        return ANY_VERSION
    match = _ETAG.fullmatch(header.strip())
    if match is None:
        raise InvalidRequestError('If-Match needs the form W/"version"', issue_code="value")
    return int(match.group(1) or match.group(2))


def parse_if_none_match(header: str | None) -> bool:
    """Whether a write must make a new resource (``If-None-Match: *``).

    Raises
    ------
    InvalidRequestError
        Anything but ``*``, which would have to be ignored.
    """
    if header is not None and header.strip() != "*":
        raise InvalidRequestError("If-None-Match of a write must be *", issue_code="value")
    return header is not None


def parse_unmodified_since(header: str | None) -> datetime | None:
    """Moment of an If-Unmodified-Since header (RFC 9110 §13.1.4: what is no date is ignored)."""
    try:
        moment = parsedate_to_datetime(header) if header else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def check_type(resource_type: str) -> None:
    """Refuse a type that R4 does not have.

    Raises
    ------
    NotFoundError
        404, as for any URL that is nothing.
    """
    if resource_type not in resource_types():
        if resource_type == "Parameters":  # "There is no RESTful end-point associated with it" (parameters.html)
            text = "Parameters only pass through operations and are never stored"
            raise NotFoundError(text, issue_code="not-supported")
        raise NotFoundError("There is no such resource type in FHIR R4")


def check_writable(resource_type: str, method: str) -> None:
    """Refuse changing what may only be added.

    Raises
    ------
    NotSupportedError
        405: an AuditEvent can be neither updated nor deleted.
    """
    action = _ACTIONS[method]
    if action not in _READ_ONLY_ACTIONS.get(resource_type, "crud"):
        raise NotSupportedError(f"{resource_type} can be created and read only", headers={"Allow": "GET"})


def check_identity(operation: Operation) -> None:
    """Check that body and URL speak of the same resource.

    Raises
    ------
    InvalidRequestError
        Type or id differ, or the id has a form that R4 does not allow.
    """
    resource = operation.resource
    if resource is not None and resource.resource_type != operation.resource_type:
        raise InvalidRequestError("resourceType differs from the URL", expression=(operation.resource_type,))
    if operation.logical_id is not None and not LOGICAL_ID.fullmatch(operation.logical_id):
        raise InvalidRequestError("The id in the URL is not a FHIR id", issue_code="value")
    if operation.method == "PUT" and operation.query is None and resource is not None:
        expression = (f"{operation.resource_type}.id",)
        if resource.logical_id is None:
            raise InvalidRequestError(
                "An update needs the id in the body", issue_code="required", expression=expression
            )
        if resource.logical_id != operation.logical_id:
            raise InvalidRequestError(
                "The id in the body differs from the URL", issue_code="value", expression=expression
            )


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Parse the query of a conditional interaction.

    Raises
    ------
    InvalidRequestError
        Empty: it would match everything.
    """
    try:
        pairs = parse_qsl(query.partition("?")[2] if "?" in query else query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as exc:
        raise InvalidRequestError("The query is not valid UTF-8", issue_code="value") from exc
    if not pairs:
        raise InvalidRequestError("A conditional interaction needs search parameters", issue_code="required")
    return pairs
