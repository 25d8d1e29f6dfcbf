"""Stages of a model version and which step may follow which; a pure table (stage 11).

candidate → shadow → released → retired. A person takes every step; what the step asks for stands in `CHECKLIST`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Stage(StrEnum):
    """Where a model version stands."""

    CANDIDATE = "candidate"
    """Registered; runs only where somebody asks for it."""
    SHADOW = "shadow"
    """Runs beside the released one; nothing of it reaches the record."""
    RELEASED = "released"
    """Speaks for studies."""
    RETIRED = "retired"
    """Speaks for none; what it wrote stays, with its name."""
    RECALLED = "recalled"
    """Retired because it is wrong: never released again, and what it wrote is marked."""


_NEXT: Mapping[Stage, frozenset[Stage]] = {
    Stage.CANDIDATE: frozenset({Stage.SHADOW, Stage.RETIRED, Stage.RECALLED}),
    Stage.SHADOW: frozenset({Stage.RELEASED, Stage.CANDIDATE, Stage.RETIRED, Stage.RECALLED}),
    Stage.RELEASED: frozenset({Stage.RETIRED, Stage.RECALLED}),
    Stage.RETIRED: frozenset({Stage.RELEASED, Stage.SHADOW, Stage.RECALLED}),
    Stage.RECALLED: frozenset(),
}

CHECKLIST: tuple[str, ...] = (
    "evaluation-read",
    "subgroups-read",
    "shadow-read",
    "model-card-complete",
    "licences-of-data-clear",
)
"""What the person who releases a version confirms, item by item (POLICY)."""


class StageError(Exception):
    """The step is not allowed; the message says why, for people."""


def check_step(current: Stage, wanted: Stage, *, confirmed: frozenset[str] = frozenset()) -> None:
    """Refuse a step that may not follow, or a release with an unconfirmed item.

    Raises
    ------
    StageError
        The step may not follow, or items of `CHECKLIST` are missing.
    """
    if wanted not in _NEXT[current]:
        allowed = ", ".join(sorted(_NEXT[current])) or "nothing"
        raise StageError(f"a {current} version cannot become {wanted}; it can become {allowed}")
    missing = [item for item in CHECKLIST if item not in confirmed]
    if wanted is Stage.RELEASED and current is Stage.SHADOW and missing:
        raise StageError(f"to be confirmed before the release: {', '.join(missing)}")
