"""Sets of whole numbers as sorted, disjoint, half-open intervals: descendants of a concept are few of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise


class IntervalSet:
    """An immutable set of numbers; `flat` is ``(low, high, low, high, …)``."""

    __slots__ = ("_before", "flat", "size")

    def __init__(self, flat: tuple[int, ...] = ()) -> None:
        self.flat = flat
        self._before: list[int] = []
        self.size = 0
        for position in range(0, len(flat), 2):
            self._before.append(self.size)
            self.size += flat[position + 1] - flat[position]

    @classmethod
    def of_numbers(cls, numbers: Iterable[int]) -> IntervalSet:
        """Build from single numbers in any order."""
        flat: list[int] = []
        for number in sorted(set(numbers)):
            if flat and flat[-1] == number:
                flat[-1] = number + 1
            else:
                flat += (number, number + 1)
        return cls(tuple(flat))

    @classmethod
    def union(cls, sets: Iterable[IntervalSet]) -> IntervalSet:
        """Numbers of any of the sets."""
        return cls(merge(pair for item in sets for pair in item.pairs()))

    def __contains__(self, number: int) -> bool:
        # An odd place lies inside an interval: behind its low end, not yet behind its high end.
        return bisect_right(self.flat, number) % 2 == 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntervalSet) and self.flat == other.flat

    def __hash__(self) -> int:
        return hash(self.flat)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield (low, high)."""
        return zip(self.flat[::2], self.flat[1::2], strict=True)

    def intersection(self, other: IntervalSet) -> IntervalSet:
        """Numbers of both sets."""
        left, right = list(self.pairs()), list(other.pairs())
        found: list[int] = []
        i = j = 0
        while i < len(left) and j < len(right):
            low, high = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
            if low < high:
                found += (low, high)
            if left[i][1] < right[j][1]:
                i += 1
            else:
                j += 1
        return IntervalSet(tuple(found))

    def difference(self, other: IntervalSet) -> IntervalSet:
        """Numbers of this set that the other lacks."""
        if not self.flat or not other.flat:
            return self
        return self.intersection(other.complement(self.flat[-1]))

    def complement(self, end: int) -> IntervalSet:
        """Numbers of [0, end) that the set lacks."""
        bounds = [0, *self.flat, max(end, self.flat[-1] if self.flat else 0)]
        gaps = [(low, high) for low, high in list(pairwise(bounds))[::2] if low < high]
        return IntervalSet(tuple(number for gap in gaps for number in gap))

    def page(self, offset: int, limit: int) -> list[int]:
        """Return up to `limit` numbers from the `offset`-th on, without walking over those before."""
        found: list[int] = []
        index = max(bisect_right(self._before, offset) - 1, 0)
        while index < len(self._before) and len(found) < limit:
            low, high = self.flat[2 * index], self.flat[2 * index + 1]
            start = low + max(offset - self._before[index], 0)
            found += range(start, min(high, start + limit - len(found)))
            index += 1
        return found


def merge(pairs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Flatten intervals that may overlap or touch."""
    flat: list[int] = []
    for low, high in sorted(pairs):
        if flat and low <= flat[-1]:
            if high > flat[-1]:
                flat[-1] = high
        else:
            flat += (low, high)
    return tuple(flat)
