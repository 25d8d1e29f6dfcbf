"""From lines of NDJSON to changes of the record: the same checks as for a create or update. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import fhirkit
import orjson

from fhir_server.access.policy import Access
from fhir_server.interactions.operations import check_type
from fhir_server.model.references import LOGICAL_ID, conditional_references
from fhir_server.model.resource import Resource, parse_resource
from fhir_server.model.validation import check_limits, fhirkit_issues, raise_for, validate
from fhir_server.rules.ai_signoff import check_signoff
from fhir_server.settings import FhirSettings
from fhir_server.store.changes import Change, Stored, save
from foramen.kernel.errors import InteropError, InvalidRequestError, Issue, NotFoundError, NotSupportedError
from foramen.kernel.identifiers import new_logical_id

Name = tuple[str, str]


@dataclass(slots=True)
class Line:
    """One line: a resource that may be written under a name, or why not."""

    number: int
    resource: Resource | None = None
    name: Name = ("", "")
    issues: tuple[Issue, ...] = ()
    """Why it is refused; empty when it is not."""


class Good(NamedTuple):
    """A line that was found good, and the name it has or got."""

    number: int
    text: bytes
    name: Name


@dataclass(slots=True)
class Decided:
    """What becomes of some lines."""

    changes: list[Change] = field(default_factory=list)
    refused: list[Line] = field(default_factory=list)


def read_line(number: int, text: bytes | None, limits: FhirSettings, *, full: bool, expected: str = "") -> Line:
    """Parse and validate one line.

    Parameters
    ----------
    text : None when it is too long
    full : with bindings and invariants; else structure and data types only
    expected : the resource type that the input was said to hold; empty: any
    """
    try:
        if text is None:
            raise InvalidRequestError("The line is too long", issue_code="too-long")
        return _line(number, text, limits, full=full, expected=expected)
    except InteropError as exc:
        return Line(number, issues=exc.issues)


def reread(good: Good, limits: FhirSettings) -> Line:
    """Parse again a line that was found good."""
    return Line(good.number, parse_resource(good.text, limits.max_depth), good.name)


def _line(number: int, text: bytes, limits: FhirSettings, *, full: bool, expected: str) -> Line:
    resource = parse_resource(text, limits.max_depth)
    try:
        check_type(resource.resource_type)
    except NotFoundError as exc:
        raise InvalidRequestError(
            "There is no such resource type in FHIR R4", issue_code="structure", expression=("resourceType",)
        ) from exc
    if expected and resource.resource_type != expected:
        raise InvalidRequestError("The line is of another type than its input says", issue_code="structure")
    check_limits(resource, limits)
    if full:
        validate(resource)
    else:
        try:
            raise_for(fhirkit_issues(resource.body))
        except fhirkit.ParseError as exc:
            raise InvalidRequestError("The line is not valid JSON", issue_code="structure") from exc
    logical_id = resource.logical_id
    if logical_id is not None and not LOGICAL_ID.fullmatch(logical_id):
        raise InvalidRequestError("The id is not a FHIR id", issue_code="value")
    if conditional_references(resource.body):
        raise InvalidRequestError("Conditional references cannot be imported", issue_code="not-supported")
    return Line(number, resource, (resource.resource_type, logical_id or new_logical_id()))


def waves(lines: Iterable[Good], most: int) -> Iterator[list[Good]]:
    """Cut lines so that none writes the same resource twice: the second is a version after the first."""
    wave: list[Good] = []
    seen: set[Name] = set()
    for line in lines:
        if line.name in seen or len(wave) >= most:
            yield wave
            wave, seen = [], set()
        wave.append(line)
        seen.add(line.name)
    if wave:
        yield wave


def decide(
    wave: list[Line],
    current: dict[Name, Stored],
    buried: dict[int, bytes],
    access: Access,
    now: datetime,
    own_url: str,
    provenances: list[dict[str, Any]],
) -> Decided:
    """Decide what is written of lines whose current versions are locked.

    Parameters
    ----------
    buried : content that deleted resources had last, by row
    provenances : those that are written in the same transaction
    """
    decided = Decided()
    for line in wave:
        old = current.get(line.name)
        try:
            _check(line, old, buried, access, provenances)
            assert line.resource is not None  # noqa: S101 - what could not be read is not among these
            change = save(
                line.resource.body,
                line.resource.data,
                line.name[1],
                updated=max(now, old.updated) if old else now,
                own_url=own_url,
                previous=old,
                method=method_of(line),
            )
            if access.restriction is not None:
                access.restriction.check_write(change)
        except InteropError as exc:
            line.issues = exc.issues
            decided.refused.append(line)
            continue
        decided.changes.append(change)
    return decided


def method_of(line: Line) -> str:
    """Return how the resource would have been sent: to its name, or to get one."""
    return "POST" if line.resource is None or line.resource.logical_id is None else "PUT"


def _check(
    line: Line, old: Stored | None, buried: dict[int, bytes], access: Access, provenances: list[dict[str, Any]]
) -> None:
    assert line.resource is not None  # noqa: S101
    resource_type = line.name[0]
    access.context.require_whole_type(resource_type, "c" if old is None else "u")
    if resource_type == "AuditEvent" and old is not None:
        raise NotSupportedError("AuditEvent can be created and read only")
    before = None
    if old is not None:
        content = buried.get(old.row) if old.is_deleted else old.content
        before = orjson.loads(content) if content else None
    check_signoff(before, line.resource.data, "/".join(line.name), access.context, provenances)
