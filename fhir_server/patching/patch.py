"""One patch, whatever its language, applied to the text of a resource. https://hl7.org/fhir/R4/http.html#patch"""

from __future__ import annotations

from typing import Any, Protocol

from fhir_server.model.resource import Resource, check_depth, parse_resource
from fhir_server.patching.exact_json import dump, load, prune
from fhir_server.patching.fhirpath_patch import parse_fhirpath_patch
from fhir_server.patching.json_patch import parse_json_patch
from fhir_server.settings import FhirSettings
from foramen.kernel.errors import InvalidResourceError, PayloadTooLargeError

JSON_PATCH = "application/json-patch+json"


class Patch(Protocol):
    """A parsed patch."""

    @property
    def asks(self) -> bool:
        """Whether its success depends on values of the resource: who may not read it could guess them one by one."""

    def apply(self, document: dict[str, Any], resource_type: str, max_bytes: int) -> Any:
        """Return the patched document."""


def parse_patch(body: bytes, limits: FhirSettings, *, is_json_patch: bool) -> Patch:
    """Parse a JSON Patch, or a Parameters resource in JSON.

    Raises
    ------
    InvalidRequestError
        400.
    """
    check_depth(body, limits.max_depth)
    if is_json_patch:
        return parse_json_patch(body, limits.max_patch_operations)
    return parse_fhirpath_patch(body, limits.max_patch_operations)


def patched(patch: Patch, content: bytes, resource_type: str, limits: FhirSettings) -> Resource:
    """Return the resource that a patch makes of another; its rules are still to be checked.

    Raises
    ------
    InteropError
        409, 413 or 422: the patch does not fit, or changes what the resource is.
    """
    before = load(content)
    identity = before["resourceType"], before["id"]
    # One operation must always be possible, however large the resource is already.
    found = prune(patch.apply(before, resource_type, limits.max_patch_bytes + 2 * len(content)))
    if not isinstance(found, dict):
        raise InvalidResourceError("The patch leaves no resource", issue_code="structure", expression=(resource_type,))
    for name, value in zip(("resourceType", "id"), identity, strict=True):
        if found.get(name) != value:
            where = (f"{resource_type}.{name}",)
            raise InvalidResourceError(f"A patch cannot change {name}", issue_code="business-rule", expression=where)
    body = dump(found)
    if len(body) > limits.max_patch_bytes + len(content):
        raise PayloadTooLargeError("The patch makes the resource too large")
    return parse_resource(body, limits.max_depth)
