"""What can be wrong with a patch, and where: the operation's number and the element it speaks of."""

from __future__ import annotations

import re

from foramen.kernel.errors import ConflictError, InteropError, InvalidRequestError, InvalidResourceError

_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9]{0,63}")


def expression(resource_type: str, tokens: tuple[str | int, ...]) -> tuple[str, ...]:
    """Return the FHIRPath of a place; what is no name of an element ends it, as it may be anything."""
    path = resource_type
    for token in tokens:
        text = str(token)
        if text.isdecimal():
            path += f"[{text}]"
        elif _NAME.fullmatch(text):
            path += f".{text}"
        else:
            break
    return (path,)


def malformed(place: int, what: str) -> InteropError:
    """400: the patch document itself is wrong."""
    return InvalidRequestError(f"Operation {place} of the patch {what}", issue_code="structure")


def not_applicable(place: int, what: str, where: tuple[str, ...]) -> InteropError:
    """422: the patch is well formed but does not fit the resource."""
    return InvalidResourceError(f"Operation {place} of the patch {what}", issue_code="processing", expression=where)


def test_failed(place: int, where: tuple[str, ...]) -> InteropError:
    """409: the resource is not as the patch expects it (RFC 5789 §2.2, conflicting state)."""
    return ConflictError(f"Operation {place} of the patch: the test failed", expression=where)
