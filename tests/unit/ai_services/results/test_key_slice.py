"""Key slices, texts and places on a key image: pure rules, without DICOM."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ai_services.prediction import Finding
from ai_services.results.key_image_layout import lay_out
from ai_services.results.key_image_text import disc_text, short_level
from ai_services.results.key_slice import key_slices, outline, spread
from tests.builders.prediction import prediction


@pytest.mark.parametrize(("level", "short"), [("L4-L5", "L4/5"), ("L5-S1", "L5/S1"), ("T12-L1", "T12/L1")])
def test_levels_are_written_as_surgeons_say_them(level: str, short: str) -> None:
    assert short_level(level) == short


def test_a_grade_that_was_not_computed_is_said_and_not_left_out() -> None:
    absent = Finding("F06", "L4-L5", absent_reason="unknown", absent_text_zh="无", absent_text_en="not seen")
    assert disc_text([absent], "L4-L5") == "L4/5 Pfirrmann -"
    assert disc_text([Finding("F06", None, "5", confidence=0.5)], None) == "? Pfirrmann V 0.50"
    assert disc_text([Finding("F01", "L4-L5", "normal", confidence=0.9)], "L4-L5") == "L4/5 Pfirrmann -"


def test_the_slice_that_shows_most_of_each_disc_is_chosen_not_the_one_with_the_largest_disc() -> None:
    made = prediction()
    mask = np.zeros_like(made.mask)
    mask[1, 38:46, 0:40] = 3  # one disc is huge here, and the other one is not there
    mask[3, 38:44, 0:38] = 3
    mask[3, 24:28, 11:25] = 4
    assert [(key.index, key.segments) for key in key_slices(replace(made, mask=mask))] == [(3, (3, 4))]


def test_texts_do_not_overlap_and_stay_inside() -> None:
    placed = spread([10, 11, 12, 95], 8, (4, 96))
    assert placed == sorted(placed)
    assert all(after - before >= 8 for before, after in pairwise(placed))
    assert placed[-1] <= 96
    assert spread([50, 50.5], 8, (4, 96))[0] == 50


@pytest.mark.parametrize("posterior_right", [True, False])
def test_texts_stand_in_front_of_the_spine_where_there_is_room(posterior_right: bool) -> None:
    made = prediction()
    big = np.kron(made.mask, np.ones((1, 20, 20), dtype=np.uint8))
    affine = made.affine_lps.copy()
    affine[1, 2] = 0.2 if posterior_right else -0.2
    wide = np.pad(big, ((0, 0), (0, 0), (600, 600)))
    (key,) = key_slices(replace(made, mask=wide))
    marks = lay_out(replace(made, mask=wide, affine_lps=affine), key)
    assert [mark.text_on_left for mark in marks] == [posterior_right] * 2
    for mark in marks:
        edge = mark.path[:, 0].min() if posterior_right else mark.path[:, 0].max()
        assert mark.box[2] < edge if posterior_right else mark.box[0] > edge
        assert abs(mark.anchor[0] - edge) < 15


def test_the_outline_of_a_torn_disc_is_that_of_its_larger_piece() -> None:
    section = np.zeros((20, 30), dtype=bool)
    section[5:9, 4:20] = True
    section[15:17, 25:27] = True
    path = outline(section)
    assert path[:, 1].max() < 10
    assert outline(np.pad(np.ones((1, 1), dtype=bool), 3)).shape[1] == 2
