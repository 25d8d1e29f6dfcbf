"""What a relative reference means in a Bundle: what its entry's fullUrl makes of it.

https://hl7.org/fhir/R4/bundle.html#references
"""

from __future__ import annotations

import re

_RESTFUL = re.compile(rb"(https?://.*/)[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")


def base_of(full_url: bytes) -> bytes:
    """Base of a RESTful URL ``[base]Type/id``; empty for any other."""
    match = _RESTFUL.fullmatch(full_url)
    return match.group(1) if match else b""


def relative_targets(targets: dict[bytes, bytes]) -> dict[bytes, dict[bytes, bytes]]:
    """Return base → relative reference → target, of targets by fullUrl."""
    found: dict[bytes, dict[bytes, bytes]] = {}
    for url, target in targets.items():
        base = base_of(url)
        if base:
            found.setdefault(base, {})[url[len(base) :]] = target
    return found
