"""Hold what is written against its profiles. https://hl7.org/fhir/R4/resource.html#Meta, validation.html#profile"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_server.interactions.operations import Operation, at
from fhir_server.model.resource import Resource
from fhir_server.server import Server
from fhir_server.validation.check import check_profiles, profiles_of
from foramen.kernel.errors import InvalidResourceError, Issue


async def check_profile(server: Server, resource: Resource) -> None:
    """Refuse a resource that does not meet its profiles.

    Raises
    ------
    InvalidResourceError
        422 with one issue for each fault.
    """
    (issues,) = await check_profiles(server, [resource])
    _refuse(issues)


async def check_operations(server: Server, operations: Sequence[Operation]) -> None:
    """Refuse writes whose resources do not meet their profiles; most claim none and cost one look each.

    Raises
    ------
    InvalidResourceError
        422 with one issue for each fault of the first resource that has any.
    """
    held = [operation for operation in operations if operation.resource and profiles_of(operation.resource.data)]
    if not held:
        return
    found = await check_profiles(server, [operation.resource for operation in held if operation.resource is not None])
    for operation, issues in zip(held, found, strict=True):
        with at(operation):
            _refuse(issues)


def _refuse(issues: Sequence[Issue]) -> None:
    errors = [issue for issue in issues if issue.severity in ("error", "fatal")]
    if errors:
        text = "The resource does not meet its profile"
        raise InvalidResourceError(text, issue_code=errors[0].issue_code, issues=errors)
