"""National identifiers in the index: a keyed hash stands for the value, so that the index tells no number (ADR 0032).

A hash without a key would: there are few enough identity card numbers to try them all.
HMAC (RFC 2104) with SHA-256, or SM3 (GB/T 32905), cut to 64 bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from foramen.kernel.crypto import DigestName, digest_algorithm

HIDDEN = "*"
"""Stands for a value where no plain copy may remain."""
_ALIKE = 12
_SYSTEM = re.compile(r"[!#-\[\]-~]{4,200}")  # Printable ASCII but quote and backslash: the same text in JSON.


def parse_systems(text: str) -> tuple[str, ...]:
    """Read a list of identifier systems, separated by commas or white space; one that ends in ``*`` is a beginning.

    Raises
    ------
    ValueError
        An entry cannot be a system.
    """
    found = tuple(dict.fromkeys(re.split(r"[\s,]+", text.strip()))) if text.strip(" ,\t\n") else ()
    names = tuple(name for name in found if name)
    if any(_SYSTEM.fullmatch(name) is None or "*" in name[:-1] for name in names):
        raise ValueError("an identifier system is a URI of printable ASCII; only its last character may be *")
    return names


def _coarse(needles: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the common beginnings of systems that begin alike: fewer searches say that none is there."""
    groups: dict[bytes, list[bytes]] = {}
    for needle in needles:
        groups.setdefault(needle[:_ALIKE], []).append(needle)
    return tuple(_common(min(group), max(group)) for group in groups.values())


def _common(one: bytes, other: bytes) -> bytes:
    place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:place]


@dataclass(frozen=True, slots=True, eq=False)  # Conditions are remembered by it: each list of systems is one.
class BlindIndex:
    """Knows the systems whose values are hashed with a key, and the key.

    Parameters
    ----------
    names : systems; one that ends in ``*`` stands for all that begin so
    """

    names: tuple[str, ...]
    key: bytes = field(repr=False)
    digest: DigestName = "SHA-256"
    systems: frozenset[str] = field(init=False)
    beginnings: tuple[str, ...] = field(init=False)
    needles: tuple[bytes, ...] = field(init=False)
    """What stands in the bytes of a resource that may hold one of the systems."""
    coarse: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        beginnings = tuple(name[:-1] for name in self.names if name.endswith("*"))
        whole = frozenset(name for name in self.names if not name.endswith("*"))
        object.__setattr__(self, "systems", whole)
        object.__setattr__(self, "beginnings", beginnings)
        object.__setattr__(self, "needles", tuple(name.encode() for name in sorted({*whole, *beginnings})))
        object.__setattr__(self, "coarse", _coarse(self.needles))

    def knows(self, system: Any) -> bool:
        """Whether values of this system are hidden."""
        return system in self.systems or (type(system) is str and system.startswith(self.beginnings))

    def hash(self, text: str) -> int:
        """Signed 64-bit hash of a text that only holders of the key can make."""
        mac = digest_algorithm(self.digest).mac(self.key, text.encode("utf-8", "surrogatepass"))
        return int.from_bytes(mac[:8], "big", signed=True)

    def may_be_in(self, content: bytes) -> bool:
        """Whether the bytes of a resource name one of the systems; nearly none does, and this is all that it costs."""
        for needle in self.coarse:
            if needle in content:
                return any(found in content for found in self.needles)
        return False

    def hidden(self, data: Any) -> Any:
        """Return a resource with `HIDDEN` in the place of the values: the same object when it has none."""
        if type(data) is list:
            changed = [self.hidden(item) for item in data]
            return changed if any(a is not b for a, b in zip(changed, data, strict=True)) else data
        if type(data) is not dict:
            return data
        found = {name: self.hidden(value) for name, value in data.items()}
        if type(data.get("value")) is str and self.knows(data.get("system")):
            return {**found, "value": HIDDEN}
        return found if any(found[name] is not value for name, value in data.items()) else data


def sealed_apart(
    entries: Iterable[tuple[str, set[int], set[int]]], sealed: frozenset[str]
) -> tuple[set[int], set[int]]:
    """Return what index entries to take away and to add for values that lie in the store as they came.

    Parameters
    ----------
    entries : (value, entries without a key, entries with it) of each hidden value
    sealed : values that are sealed in the stored bytes
    """
    away: set[int] = set()
    more: set[int] = set()
    for value, plain, keyed in entries:
        if value not in sealed:
            away |= keyed
            more |= plain
    return away, more
