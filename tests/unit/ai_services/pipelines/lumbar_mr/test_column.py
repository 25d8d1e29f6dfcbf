"""Each kind of miscount that was seen on real patients, drawn small."""

from __future__ import annotations

import numpy as np
import pytest

from ai_services.pipelines.lumbar_mr.column import SACRAL_REMNANT
from ai_services.pipelines.lumbar_mr.postprocess import find_spine, number_levels

ROWS, COLUMNS, PITCH, HEIGHT = 300, 200, 38, 10


def spine(discs: int, *, top: int = 30, split: bool = False, remnant: bool = False) -> np.ndarray:
    """Probabilities of one slice: a canal, discs 36 pixels deep, bodies between them and above the uppermost."""
    classes = np.zeros((ROWS, COLUMNS), np.uint8)
    lowest = top + PITCH * (discs - 1)
    classes[: lowest + 60, 110:122] = 3
    classes[: lowest + HEIGHT // 2, 70:106] = 1
    for number in range(discs):
        row = top + PITCH * number
        classes[max(0, row - HEIGHT // 2) : row + HEIGHT // 2, 70:106] = 2
    if split:  # a steep lowest disc, seen as an anterior lower and a posterior upper piece with a gap
        classes[lowest - HEIGHT // 2 : lowest + HEIGHT // 2, 70:106] = 0
        classes[lowest - 6 : lowest + 6, 92:106] = 2
        classes[lowest + 8 : lowest + 20, 74:88] = 2
    if remnant:
        classes[lowest + PITCH - 3 : lowest + PITCH + 3, 88:102] = 2
    one_hot = np.stack([classes == number for number in range(4)]).astype(np.float32)
    return (one_hot * 0.97 + 0.01)[None]


@pytest.mark.parametrize("discs", [5, 6, 7])
def test_whole_discs_are_all_counted(discs):
    assert len(find_spine(spine(discs), 4.0).discs) == discs


def test_a_steep_disc_seen_in_two_pieces_is_one_disc():
    found = find_spine(spine(6, split=True), 4.0)
    assert len(found.discs) == 6
    assert found.discs[0].level == "L5-S1"
    columns = np.flatnonzero((found.instances == 1).any(axis=(0, 1)))
    assert columns.min() < 80
    assert columns.max() > 100


def test_a_disc_of_the_sacrum_is_left_out_and_makes_the_numbering_doubtful():
    found = find_spine(spine(6, remnant=True), 4.0)
    assert len(found.discs) == 6
    numbering = number_levels(found)
    assert not numbering.confident
    assert numbering.reason is not None
    assert SACRAL_REMNANT in numbering.reason


def test_an_uppermost_disc_cut_by_the_border_is_not_counted():
    assert len(find_spine(spine(6, top=2), 4.0).discs) == 5
    assert len(find_spine(spine(6, top=12), 4.0).discs) == 6
