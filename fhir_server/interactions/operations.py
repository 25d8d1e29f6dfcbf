"""One write a client asks for: create, update or delete, with its conditions. Pure: read from a request or an entry.

https://hl7.org/fhir/R4/http.html#create, #update, #delete
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from fhir_server.model.references import LOGICAL_ID
from fhir_server.model.resource import Resource
from fhir_server.search.parameters import resource_types
from foramen.kernel.errors import InvalidRequestError, NotFoundError, NotSupportedError

_ETAG = re.compile(r'(?:W/)?"([0-9]{1,9})"|([0-9]{1,9})')
_READ_ONLY_ACTIONS = {"AuditEvent": "cr"}


@dataclass(slots=True)
class Operation:
    """One write."""

    method: str
    resource_type: str
    logical_id: str | None = None
    resource: Resource | None = None
    if_match: int | None = None
    must_be_new: bool = False
    query: str | None = None
    full_url: str | None = None
    place: str = ""

    @property
    def action(self) -> str:
        """SMART action that allows it."""
        return {"POST": "c", "PUT": "u", "DELETE": "d"}[self.method]

    @property
    def name(self) -> tuple[str, str]:
        """(type, id) of what is written; only after an id was given."""
        assert self.logical_id is not None  # noqa: S101
        return self.resource_type, self.logical_id

    @property
    def reference(self) -> str:
        """`Type/id`."""
        return f"{self.resource_type}/{self.logical_id}"


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
    """Version id of an If-Match header.

    Raises
    ------
    InvalidRequestError
        Not an entity tag of ours.
    """
    if header is None or header.strip() == "*":
        return None
    match = _ETAG.fullmatch(header.strip())
    if match is None:
        raise InvalidRequestError('If-Match needs the form W/"version"', issue_code="value")
    return int(match.group(1) or match.group(2))


def check_type(resource_type: str) -> None:
    """Refuse a type that R4 does not have.

    Raises
    ------
    NotFoundError
        404, as for any URL that is nothing.
    """
    if resource_type not in resource_types():
        raise NotFoundError("There is no such resource type in FHIR R4")


def check_writable(resource_type: str, method: str) -> None:
    """Refuse changing what may only be added.

    Raises
    ------
    NotSupportedError
        405: an AuditEvent can be neither updated nor deleted.
    """
    action = {"POST": "c", "PUT": "u", "DELETE": "d"}[method]
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
