"""JSON Merge Patch (RFC 7396): an object of the elements to replace; null takes one away.

R4 names JSON Patch, XML Patch and FHIRPath Patch; clients such as `fhirpy` send this one.
"""

from __future__ import annotations

from typing import Any

from fhir_server.model.resource import check_depth
from fhir_server.patching.exact_json import load
from fhir_server.settings import FhirSettings
from foramen.kernel.errors import InvalidRequestError

MERGE_PATCH = "application/merge-patch+json"


class MergePatch:
    """A parsed merge patch."""

    def __init__(self, changes: Any) -> None:
        if not isinstance(changes, dict):
            raise InvalidRequestError("A merge patch is a JSON object", issue_code="structure")
        self._changes = changes

    @property
    def asks(self) -> bool:
        """Whether it depends on values: it has no conditions."""
        return False

    def apply(self, document: dict[str, Any], resource_type: str, max_bytes: int) -> Any:
        """Return the patched document."""
        return _merged(document, self._changes)


def parse_merge_patch(body: bytes, limits: FhirSettings) -> MergePatch:
    """Parse a merge patch.

    Raises
    ------
    InvalidRequestError
        Not a JSON object, or another kind of patch under the wrong media type.
    """
    check_depth(body, limits.max_depth)
    changes = load(body)
    if isinstance(changes, dict) and changes.get("resourceType") == "Parameters":
        raise InvalidRequestError("A FHIRPath Patch is sent as application/fhir+json", issue_code="structure")
    return MergePatch(changes)


def _merged(target: Any, changes: Any) -> Any:
    if not isinstance(changes, dict):
        return changes
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result
