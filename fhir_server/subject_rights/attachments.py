"""Where the resources of a record lead: the Binaries they refer to, and their own keys. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from fhir_server.search.hashing import resource_key

_BINARY = re.compile(rb'"(?:reference|url)"\s*:\s*"[^"\\]{0,300}?Binary/([A-Za-z0-9.-]{1,64})"')


class _Named(msgspec.Struct):
    """As much of a resource as its name."""

    resourceType: str
    id: str


_DECODER = msgspec.json.Decoder(_Named)


def leads(lines: Iterable[bytes]) -> tuple[set[str], set[int]]:
    """Return ids of the Binaries that some resources refer to, and the keys of the resources."""
    binaries: set[str] = set()
    keys: set[int] = set()
    for line in lines:
        binaries |= {match.decode() for match in _BINARY.findall(line)}
        named = _DECODER.decode(line)
        keys.add(resource_key(named.resourceType, named.id))
    return binaries, keys
