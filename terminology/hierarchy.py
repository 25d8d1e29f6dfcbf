"""Number the concepts of a polyhierarchy so that all descendants of each are a few intervals of numbers.

A depth-first walk gives each concept a number and its first-visited subtree one interval; what it reaches through other
parents is added as further intervals. R. Agrawal, A. Borgida, H. V. Jagadish: Efficient management of transitive
relationships in large data and knowledge bases. SIGMOD 1989.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from terminology.intervals import merge

_NEW, _OPEN, _DONE = 0, 1, 2


class HierarchyCycleError(ValueError):
    """A concept is its own ancestor; `position` is one of the cycle."""

    def __init__(self, position: int) -> None:
        super().__init__("The hierarchy has a cycle")
        self.position = position


@dataclass(frozen=True, slots=True)
class Numbering:
    """By position of the input: `number`, and `descendants` as flat half-open intervals (the concept included)."""

    number: list[int]
    descendants: list[tuple[int, ...]]


def number_hierarchy(parents: Sequence[Sequence[int]], last: Sequence[bool] = ()) -> Numbering:
    """Number concepts in depth-first order, roots and children in the order of the input.

    Parameters
    ----------
    parents : for each position the positions of its parents
    last : positions whose trees come behind all others when they are roots (inactive concepts)

    Raises
    ------
    HierarchyCycleError
        A concept is its own ancestor.
    """
    count = len(parents)
    children: list[list[int]] = [[] for _ in range(count)]
    for position, above in enumerate(parents):
        for parent in above:
            children[parent].append(position)
    roots = [position for position in range(count) if not parents[position]]
    if last:
        roots.sort(key=lambda position: last[position])
    number, descendants = [-1] * count, [()] * count  # type: list[int], list[tuple[int, ...]]
    state = bytearray(count)
    following = 0
    for root in roots:
        stack = [(root, 0)]
        state[root], number[root] = _OPEN, following
        following += 1
        while stack:
            position, index = stack.pop()
            below = children[position]
            while index < len(below) and state[below[index]] == _DONE:
                index += 1
            if index == len(below):
                descendants[position] = _reach(number[position], following, below, descendants)
                state[position] = _DONE
                continue
            child = below[index]
            if state[child] == _OPEN:
                raise HierarchyCycleError(child)
            stack += ((position, index + 1), (child, 0))
            state[child], number[child] = _OPEN, following
            following += 1
    if following < count:
        raise HierarchyCycleError(state.index(_NEW))
    return Numbering(number, descendants)


def _reach(low: int, high: int, below: list[int], descendants: list[tuple[int, ...]]) -> tuple[int, ...]:
    own = (low, high)
    pairs = [own]
    for child in below:
        flat = descendants[child]
        if len(flat) == 2:
            if flat[0] < low:
                pairs.append((flat[0], flat[1]))
        else:
            pairs += zip(flat[::2], flat[1::2], strict=True)
    return own if len(pairs) == 1 else merge(pairs)
