"""How much a worker takes on: a few runs, one more for an emergency, nothing while the spool is full (stage 4).

What is not taken stays in the record for others; a run that is taken is finished. Pure but for the scan.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_services.workflow.priorities import EXPEDITED, Rank
from terminology.codes import ANALYSE_STUDY, RECOMMEND_OPTIONS

EMERGENCY_PLACES = 1


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker has in hand.

    Parameters
    ----------
    analyses : ranks of the analyses in work
    recommendations : recommendations in work
    spool_bytes : size of what its runs keep on disk
    """

    analyses: Sequence[Rank]
    recommendations: int
    spool_bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may have in hand at most."""

    runs: int
    spool_bytes: int


def admits(load: Load, limits: Limits, code: str, rank: Rank) -> bool:
    """Whether one more Task may be taken."""
    if code == RECOMMEND_OPTIONS.code:
        return load.recommendations < 1
    if load.analyses and load.spool_bytes >= limits.spool_bytes:
        return False  # with nothing in work the spool cannot shrink by itself, so one run is always taken
    if len(load.analyses) < limits.runs:
        return True
    return rank in EXPEDITED and len(load.analyses) < limits.runs + EMERGENCY_PLACES


def wanted(load: Load, limits: Limits, ranks: Sequence[Rank]) -> dict[str, tuple[Rank, ...]]:
    """What is worth asking the record for: codes of Tasks, and of each the ranks of which one could be taken."""
    open_ranks = {
        code: tuple(rank for rank in ranks if admits(load, limits, code, rank))
        for code in (ANALYSE_STUDY.code, RECOMMEND_OPTIONS.code)
    }
    return {code: found for code, found in open_ranks.items() if found}


def bytes_in(folder: Path) -> int:
    """Size of the files in a folder; what disappears meanwhile counts nothing."""
    total = 0
    for path, _, names in os.walk(folder):  # `rglob` raises when a folder goes while it is looked through
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(path) / name).stat().st_size
    return total
