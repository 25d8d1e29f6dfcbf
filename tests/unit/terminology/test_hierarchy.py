"""Numbers and intervals against brute force over random polyhierarchies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminology.hierarchy import HierarchyCycleError, number_hierarchy
from terminology.intervals import IntervalSet

SETS = st.sets(st.integers(0, 60))


@st.composite
def _polyhierarchies(draw: st.DrawFn) -> list[list[int]]:
    count = draw(st.integers(1, 25))
    places = draw(st.permutations(range(count)))
    parents: list[list[int]] = [[] for _ in range(count)]
    for order in range(count):
        above = draw(st.sets(st.integers(0, max(order - 1, 0)), max_size=3)) if order else set()
        parents[places[order]] = [places[item] for item in above]
    return parents


def _descendants(parents: list[list[int]], place: int) -> set[int]:
    found, changed = {place}, True
    while changed:
        more = {child for child, above in enumerate(parents) if found & set(above)} - found
        found |= more
        changed = bool(more)
    return found


@given(_polyhierarchies())
def test_intervals_are_the_transitive_closure(parents: list[list[int]]) -> None:
    numbering = number_hierarchy(parents)
    assert sorted(numbering.number) == list(range(len(parents)))
    for place in range(len(parents)):
        expected = {numbering.number[other] for other in _descendants(parents, place)}
        assert set(IntervalSet(numbering.descendants[place]).page(0, 100)) == expected


@pytest.mark.parametrize("parents", [[[0]], [[1], [0]], [[], [0, 3], [1], [2]]])
def test_cycles_are_found(parents: list[list[int]]) -> None:
    with pytest.raises(HierarchyCycleError):
        number_hierarchy(parents)


def test_roots_that_come_last_have_the_highest_numbers() -> None:
    assert number_hierarchy([[], [], [1]], last=[True, False, False]).number == [2, 0, 1]


def test_a_deep_chain_needs_no_recursion() -> None:
    numbering = number_hierarchy([[], *([place] for place in range(20_000))])
    assert numbering.descendants[0] == (0, 20_001)


@given(SETS, SETS)
def test_set_algebra(left: set[int], right: set[int]) -> None:
    one, other = IntervalSet.of_numbers(left), IntervalSet.of_numbers(right)
    assert one.size == len(left)
    assert set(one.intersection(other).page(0, 100)) == left & right
    assert set(one.difference(other).page(0, 100)) == left - right
    assert set(IntervalSet.union([one, other]).page(0, 100)) == left | right
    assert set(one.complement(61).page(0, 100)) == set(range(61)) - left
    assert all((number in one) == (number in left) for number in range(-1, 62))


@given(SETS, st.integers(0, 70), st.integers(0, 70))
def test_pages_are_slices(numbers: set[int], offset: int, limit: int) -> None:
    assert IntervalSet.of_numbers(numbers).page(offset, limit) == sorted(numbers)[offset : offset + limit]
