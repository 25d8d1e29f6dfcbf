"""UIDs of corrected copies of a series: whoever knows the original can tell its copies, without trusting a header.

`foramen quality --store` makes the copies, the registration of a study must not take them for new input. What they were
made from decides their UID (`derived_uid`), so a series is such a copy only beside its original.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import combinations

from foramen.kernel.identifiers import derived_uid

STEPS = ("bias", "denoise", "resample", "standardise")
"""Corrections there are."""
VERSIONS = ("1",)
"""Versions of the corrections, the newest last; earlier ones stay, for their copies are stored somewhere."""


def corrected_series_uid(source: str, steps: Iterable[str], version: str = VERSIONS[-1]) -> str:
    """Series Instance UID of the copy of a series that these steps make."""
    return derived_uid("quality", source, version, *sorted(set(steps)))


@lru_cache(maxsize=4096)
def corrected_series_uids(source: str) -> frozenset[str]:
    """Return the Series Instance UIDs of every copy that can be made of a series."""
    return frozenset(
        corrected_series_uid(source, steps, version)
        for version in VERSIONS
        for count in range(1, len(STEPS) + 1)
        for steps in combinations(STEPS, count)
    )
