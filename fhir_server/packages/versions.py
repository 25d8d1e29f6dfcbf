"""Which of two versions is newer: numbers by their value, a release after its pre-releases. Pure.

https://semver.org/#spec-item-11
"""

from __future__ import annotations

import re

_PART = re.compile(r"(\d+)|([A-Za-z]+)")


def version_key(version: str) -> tuple[object, ...]:
    """Return a key by which versions sort from old to new."""
    release, _, label = version.partition("-")
    numbers = tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in release.split("."))
    before = tuple((1, int(n), "") if n else (0, 0, word) for n, word in _PART.findall(label))
    return (numbers, not label, before)
