"""Validate a resource against R4 itself: the one function every write passes. Profiles: `fhir_server.validation.check`.

https://hl7.org/fhir/R4/validation.html. Layers (ADR 0011): structure, cardinality and formats by `fhirkit` (a 0.1
release: nothing else may import it); bindings, targets, dates, ids by our own tables; the invariants of the definitions
(narratives among them), compiled. fhirkit may be wrong only in one way that is known: see `_is_allowed_code`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import fhirkit

from fhir_server.model.elements import element_issues, text_issues
from fhir_server.model.resource import Resource
from fhir_server.settings import FhirSettings
from fhir_server.validation.invariants import invariant_issues
from foramen.kernel.errors import InvalidRequestError, InvalidResourceError, Issue, PayloadTooLargeError

_QUOTED = re.compile(r'^"(?:[^"\\]|\\.)*" ')
_NUMBER = re.compile(r"^-?[0-9][^ ]* ")
_UNKNOWN_TYPE = re.compile(r"^\S* is not a FHIR R4 resource type.*")
_CODES = (
    ("appears more than once", "structure"),
    ("unknown element", "structure"),
    ("expected ", "structure"),
    ("is not a FHIR R4 resource type", "structure"),
    ("empty", "structure"),
    ("null ", "structure"),
    ("line up", "structure"),
    ("required element missing", "required"),
    ("only one type may be given", "structure"),
    ("is not a", "value"),
    ("outside the 32-bit range", "value"),
)
_NO_CODE = '" is not a valid code'
# The definition's pattern `[^\s]+(\s[^\s]+)*` in the sense of XML Schema, where \s is these four: a no-break space is
# part of a code (CodeSystem v2-0550 of R4 has some).
_CODE = re.compile(r"[^ \t\r\n]+(?:[ \t\r\n][^ \t\r\n]+)*")
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-f]{1,6})\}|(.))")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_CONTROL = re.compile(rb"\\(?:u00[01]|[bf])")
_LONG = 1024 * 1024
_MOST_ISSUES = 500
"""Faults of one resource that are told: an answer must not grow with the faults of a hostile request."""


def _issue_code(message: str) -> str:
    return next((code for part, code in _CODES if part in message), "invalid")


def _is_allowed_code(message: str) -> bool:
    if not message.endswith(_NO_CODE):
        return False

    def character(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else _ESCAPED.get(match[2], match[2])

    return _CODE.fullmatch(_ESCAPE.sub(character, message[1 : -len(_NO_CODE)])) is not None


def _diagnostics(message: str) -> str:
    """Return the message without the value, which may be PHI."""
    text = _NUMBER.sub("The value ", _QUOTED.sub("The value ", message))
    return _UNKNOWN_TYPE.sub("There is no such resource type in FHIR R4", text)


def fhirkit_issues(body: bytes, most: int | None = None) -> list[Issue]:
    """Return the faults `fhirkit` finds; values are left out of the messages, as they may be PHI.

    Parameters
    ----------
    most : as many are told; None: all (where what is not told would count as valid)

    Raises
    ------
    fhirkit.ParseError
        It cannot parse the JSON at all.
    """
    faults = (
        issue for issue in fhirkit.validate(body) if issue.severity == "error" and not _is_allowed_code(issue.message)
    )
    return [
        Issue(_issue_code(issue.message), _diagnostics(issue.message), (issue.path,)) for issue in islice(faults, most)
    ]


def rule_issues(data: dict[str, Any], resource_type: str, body: bytes, *, ignore_id: bool = False) -> list[Issue]:
    """Return every fault beyond structure: bindings, targets, dates, empty objects, invariants.

    Parameters
    ----------
    data, body : the same resource, read and as sent
    resource_type : of the resource; paths of the issues begin with it
    ignore_id : when it is to be created and the id of the body means nothing
    """
    issues = element_issues(data, resource_type, ignore_id=ignore_id)
    if (b"\\" in body and _CONTROL.search(body)) or len(body) > _LONG:
        issues += text_issues(data, resource_type)
    return issues + invariant_issues(data, resource_type)


def issues_of(resource: Resource, *, ignore_id: bool = False) -> list[Issue]:
    """Return every fault of a resource, one issue each.

    Raises
    ------
    InvalidRequestError
        `fhirkit` cannot parse the JSON at all.
    """
    try:
        issues = fhirkit_issues(resource.body, _MOST_ISSUES)
    except fhirkit.ParseError as exc:
        raise InvalidRequestError("The body is not valid JSON", issue_code="structure") from exc
    found = rule_issues(resource.data, resource.resource_type, resource.body, ignore_id=ignore_id)
    if issues and found:
        return without_repeats(issues + found)
    return issues or found


def check_size(size: int, resource_type: str, limits: FhirSettings) -> None:
    """Refuse a resource that is larger than one may be; a Binary or Bundle may be as large as a request.

    Raises
    ------
    PayloadTooLargeError
        413.
    """
    if size > limits.max_resource_bytes and resource_type not in ("Binary", "Bundle"):
        raise PayloadTooLargeError(f"The resource is larger than {limits.max_resource_bytes} bytes")


def limit_issues(data: dict[str, Any], resource_type: str, limits: FhirSettings) -> list[Issue]:
    """Return what is too much of a good thing: resources inside a resource."""
    contained = data.get("contained")
    if type(contained) is list and len(contained) > limits.max_contained:
        text = f"More than {limits.max_contained} contained resources"
        return [Issue("too-costly", text, (f"{resource_type}.contained",))]
    return []


def check_limits(resource: Resource, limits: FhirSettings) -> None:
    """Refuse a resource that is too large, or contains too much, before it is looked at closely.

    Raises
    ------
    PayloadTooLargeError
        413.
    InvalidResourceError
        422 (too-costly).
    """
    check_size(len(resource.body), resource.resource_type, limits)
    raise_for(limit_issues(resource.data, resource.resource_type, limits), "The resource contains too much")


def without_repeats(issues: Sequence[Issue]) -> list[Issue]:
    """Leave out an invariant that only says again what another issue says of the same element."""
    told = {issue.expression for issue in issues if issue.issue_code != "invariant"}
    return [issue for issue in issues if issue.issue_code != "invariant" or issue.expression not in told]


def raise_for(issues: Sequence[Issue], message: str = "The resource is not valid") -> None:
    """Refuse when there is any issue of severity error.

    Raises
    ------
    InvalidRequestError
        400: an element is given twice, so the JSON has no single meaning.
    InvalidResourceError
        422 with one issue for each fault and its expression.
    """
    errors = [issue for issue in issues if issue.severity in ("error", "fatal")]
    if not errors:
        return
    twice = [issue for issue in errors if "more than once" in issue.diagnostics]
    if twice:
        raise InvalidRequestError("An element is given twice", issue_code="structure", issues=twice)
    raise InvalidResourceError(message, issue_code=errors[0].issue_code, issues=errors)


def validate(resource: Resource, *, ignore_id: bool = False) -> None:
    """Refuse a resource that breaks the rules of R4.

    Parameters
    ----------
    ignore_id : for create, where the server assigns the id and ignores the one sent

    Raises
    ------
    InvalidRequestError
        400: an element is given twice, so the JSON has no single meaning.
    InvalidResourceError
        422 with one issue for each fault and its expression.
    """
    issues = issues_of(resource, ignore_id=ignore_id)
    if issues:
        raise_for(issues)
