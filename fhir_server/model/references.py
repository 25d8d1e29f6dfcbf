"""Literal references: what they point to, and how a transaction rewrites them in the bytes.

https://hl7.org/fhir/R4/references.html, https://hl7.org/fhir/R4/http.html#trules
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_RELATIVE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:#.*)?")
REFERRING = frozenset(
    b"reference url valueUri valueUrl valueOid valueUuid valueCanonical instantiatesUri system source uri "
    b"implicitRules fullUrl".split()
)
"""Elements of type Reference.reference, uri, url, oid, uuid and canonical whose value a transaction reads."""
# A key inside a string cannot match: there its quotes are escaped.
_REWRITTEN = re.compile(rb'("(?:%b)"\s*:\s*)"([^"\\]+)"' % b"|".join(sorted(REFERRING - {b"fullUrl"})))
_URN = b"urn:uuid:"
_REWRITTEN_URN = re.compile(rb'("(?:%b)"\s*:\s*)"(%b[^"\\]+)"' % (b"|".join(sorted(REFERRING - {b"fullUrl"})), _URN))
_NARRATIVE = re.compile(rb'((?:href|src)=\\")([^"\\]+)(?=\\")')
Rewriter = Callable[[bytes], bytes]
_CONDITIONAL = re.compile(rb'"reference"\s*:\s*"([A-Z][A-Za-z]+\?[^"\\]+)"')


def parse_reference(reference: str, base: str = "") -> tuple[str, str] | None:
    """Return (type, id) of a literal reference to this server, else None.

    Parameters
    ----------
    reference : e.g. ``Patient/1``, ``Patient/1/_history/2`` or an absolute URL
    base : our own base URL; absolute references below it are ours
    """
    if base and reference.startswith(base):
        reference = reference[len(base) :].lstrip("/")
    match = _RELATIVE.fullmatch(reference)
    return (match.group(1), match.group(2)) if match else None


def normalise_reference(reference: str, base: str) -> str:
    """Return ``Type/id`` for a reference to this server, and any other reference unchanged."""
    if ":" not in reference and "#" not in reference and reference.count("/") == 1:
        return reference
    parsed = parse_reference(reference, base)
    return f"{parsed[0]}/{parsed[1]}" if parsed else reference


def rewrite_references(content: bytes, targets: Mapping[bytes, bytes]) -> bytes:
    """Replace references in JSON text by `targets`, touching nothing else; see `rewriter`."""
    return rewriter(targets)(content)


def rewriter(targets: Mapping[bytes, bytes]) -> Rewriter:
    """Return the function that replaces references in JSON text by `targets`, touching nothing else.

    Identifier.value and other strings are left alone even when they look like a ``urn:uuid:`` (rule of the
    transaction: only references and URIs are rewritten). A ``#fragment`` stays.
    """
    # Most transactions name what they create by UUIDs only: then no other value need be looked at.
    only_urns = all(head.startswith(_URN) for head in targets)
    pattern = _REWRITTEN_URN if only_urns else _REWRITTEN

    def replacement(before: bytes, value: bytes, after: bytes) -> bytes | None:
        head, mark, fragment = value.partition(b"#")
        target = targets.get(head)
        return None if target is None else before + target + mark + fragment + after

    def element(match: re.Match[bytes]) -> bytes:
        return replacement(match.group(1) + b'"', match.group(2), b'"') or match.group(0)

    def narrative(match: re.Match[bytes]) -> bytes:
        return replacement(match.group(1), match.group(2), b"") or match.group(0)

    def rewrite(content: bytes) -> bytes:
        if only_urns and _URN not in content:
            return content
        rewritten = pattern.sub(element, content)
        if b"href=" in rewritten or b"src=" in rewritten:
            rewritten = _NARRATIVE.sub(narrative, rewritten)
        return rewritten

    return rewrite


def conditional_references(content: bytes) -> set[bytes]:
    """Return the conditional references (``Patient?identifier=…``) in JSON text."""
    return set(_CONDITIONAL.findall(content)) if b"?" in content else set()
