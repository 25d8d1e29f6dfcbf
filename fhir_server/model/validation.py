"""Validate a resource: structure and data types by `fhirkit`, bindings, targets and dates by our own tables.

https://hl7.org/fhir/R4/validation.html. `fhirkit` is a 0.1 release: nothing else may import it.
"""

from __future__ import annotations

import re

import fhirkit

from fhir_server.model.elements import element_issues
from fhir_server.model.resource import Resource
from foramen.kernel.errors import InvalidRequestError, InvalidResourceError, Issue

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*" ')
_CODES = (
    ("appears more than once", "structure"),
    ("unknown element", "structure"),
    ("required element missing", "required"),
    ("only one type may be given", "structure"),
    ("is not a valid", "value"),
)


def _issue_code(message: str) -> str:
    return next((code for part, code in _CODES if part in message), "invalid")


def fhirkit_issues(body: bytes) -> list[Issue]:
    """Return the faults `fhirkit` finds; values are left out of the messages, as they may be PHI.

    Raises
    ------
    fhirkit.ParseError
        It cannot parse the JSON at all.
    """
    return [
        Issue(_issue_code(issue.message), _QUOTED.sub("The value ", issue.message), (issue.path,))
        for issue in fhirkit.validate(body)
        if issue.severity == "error"
    ]


def issues_of(resource: Resource) -> list[Issue]:
    """Return every fault of a resource.

    Raises
    ------
    InvalidRequestError
        `fhirkit` cannot parse the JSON at all.
    """
    try:
        issues = fhirkit_issues(resource.body)
    except fhirkit.ParseError as exc:
        raise InvalidRequestError("The body is not valid JSON", issue_code="structure") from exc
    return issues + element_issues(resource.data, resource.resource_type)


def validate(resource: Resource) -> None:
    """Refuse a resource that breaks the rules of R4.

    Raises
    ------
    InvalidRequestError
        400: an element is given twice, so the JSON has no single meaning.
    InvalidResourceError
        422 with one issue for each fault and its expression.
    """
    issues = issues_of(resource)
    if not issues:
        return
    twice = [issue for issue in issues if "more than once" in issue.diagnostics]
    if twice:
        raise InvalidRequestError("An element is given twice", issue_code="structure", issues=twice)
    raise InvalidResourceError("The resource is not valid", issue_code=issues[0].issue_code, issues=issues)
