"""Compares what a run said with what it says when it is done again, value by value (stage 11). Pure.

Masks must be the same voxel by voxel. Codes, units and reasons of absence must be the same; numbers may differ by
`TOLERANCE`: the record keeps three decimals, and another processor may round the last one the other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_services.prediction import Prediction, Segment
from ai_services.results.context import Resource, RunContext
from ai_services.results.observation import build_numbering, build_observation

TOLERANCE = 0.002
_COMPARED = ("valueQuantity", "valueCodeableConcept", "dataAbsentReason", "component", "bodySite", "method", "note")
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SegmentComparison:
    """One segment then and now; `dice` is 1 where both are empty."""

    name: str
    dice: float
    voxels_then: int
    voxels_now: int

    @property
    def same(self) -> bool:
        """Whether every voxel is the same."""
        return self.dice == 1.0


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not the same."""

    what: str
    then: str
    now: str


def compare_masks(
    then: NDArray[np.uint8], now: NDArray[np.uint8], segments: Sequence[Segment]
) -> list[SegmentComparison]:
    """Compare two masks of shape (slice, row, column), by the segments that the second run names.

    Raises
    ------
    ValueError
        The shapes differ.
    """
    if then.shape != now.shape:
        raise ValueError("the masks differ in shape")
    names = {segment.number: segment.name for segment in segments}
    numbers = (set(np.unique(then).tolist()) | set(names)) - {0}
    found = []
    for number in sorted(numbers):
        one, other = then == number, now == number
        both, size = int((one & other).sum()), int(one.sum()) + int(other.sum())
        dice = 1.0 if size == 0 else 2 * both / size
        name = names.get(number, f"segment {number}")
        found.append(SegmentComparison(name, dice, int(one.sum()), int(other.sum())))
    return found


def observations_of(prediction: Prediction, context: RunContext) -> list[Resource]:
    """The Observations that a run would write now."""
    device = "Device/compared"
    found = [build_observation(item, prediction, context, device) for item in prediction.findings]
    return [*found, build_numbering(prediction.numbering, prediction, context, device)]


def compare_observations(
    then: Iterable[Resource], now: Iterable[Resource], tolerance: float = TOLERANCE
) -> tuple[int, list[Difference]]:
    """Compare findings by code and level; returns how many there were, and each difference."""
    before, after = ({_key(item): item for item in found} for found in (then, now))
    differences = []
    for key in sorted(before.keys() | after.keys()):
        name = " ".join(part for part in key if part)
        if key not in before or key not in after:
            words = ("absent", "present") if key in after else ("present", "absent")
            differences.append(Difference(name, *words))
            continue
        for element in _COMPARED:
            differences += _values(f"{name} {element}", before[key].get(element), after[key].get(element), tolerance)
    return len(before), differences


def _key(observation: Resource) -> Key:
    level = observation.get("bodySite", {}).get("coding", [{}])[0].get("code", "")
    return str(observation["code"]["coding"][0]["code"]), str(level)


def _values(what: str, then: Any, now: Any, tolerance: float) -> list[Difference]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = sorted(then.keys() | now.keys())
        return [item for key in keys for item in _values(f"{what}.{key}", then.get(key), now.get(key), tolerance)]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = enumerate(zip(then, now, strict=True))
        return [item for index, (a, b) in pairs for item in _values(f"{what}[{index}]", a, b, tolerance)]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (then, now))
    if numbers and abs(then - now) <= tolerance:
        return []
    return [] if then == now else [Difference(what, str(then), str(now))]
