"""Discs are found, ordered and numbered from the lowest, and doubt about the numbering is said."""

from __future__ import annotations

import numpy as np
import pytest

from ai_services.pipelines.lumbar_mr.postprocess import (
    CANAL,
    DISC,
    VERTEBRA,
    disc_pitches_mm,
    find_spine,
    likeliest,
    number_levels,
    to_original_resolution,
)
from ai_services.pipelines.lumbar_mr.suitability import require_lumbar
from ai_services.prediction import PipelineError

SLICE_MM = 4.0
PITCH_PX = 38


def _column(discs: int = 6, lowest_row: int = 260, pitch: int = PITCH_PX, rows: int = 320) -> np.ndarray:
    """Classes (slice, row, column) of a straight spine: bodies and discs in front of a canal."""
    classes = np.zeros((9, rows, 200), np.uint8)
    classes[2:7, 20 : lowest_row + 20, 110:126] = CANAL
    for number in range(discs):
        row = lowest_row - number * pitch
        classes[1:8, row - 4 : row + 5, 70:106] = DISC
        classes[1:8, row - pitch + 5 : row - 4, 70:106] = VERTEBRA
    return classes


def _probability(classes: np.ndarray) -> np.ndarray:
    one_hot = np.stack([(classes == number) for number in range(4)], axis=1).astype(np.float32)
    return 0.9 * one_hot + 0.025


def test_of_equal_scores_the_first_class_is_taken():
    scores = np.random.default_rng(2).integers(0, 3, (4, 50, 60)).astype(np.float32)
    np.testing.assert_array_equal(likeliest(scores), scores.argmax(axis=0))


def test_a_regular_column_is_numbered_with_confidence():
    spine = find_spine(_probability(_column()), SLICE_MM)
    assert [disc.level for disc in spine.discs] == ["L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1"]
    assert disc_pitches_mm(spine) == pytest.approx([PITCH_PX * 0.94] * 5, abs=0.01)
    assert number_levels(spine).confident
    require_lumbar(spine)


def test_a_small_lowest_disc_is_kept_and_makes_the_numbering_doubtful():
    classes = _column()
    classes[:, 290:340, :] = 0
    classes[3:6, 294:298, 74:90] = DISC
    classes[3:6, 265:294, 80:100] = VERTEBRA
    spine = find_spine(_probability(classes), SLICE_MM)
    assert len(spine.discs) == 7
    assert spine.discs[0].level == "L5-S1"
    numbering = number_levels(spine)
    assert not numbering.confident
    assert "small" in str(numbering.reason)


def test_look_alikes_behind_the_canal_and_splinters_are_no_discs():
    classes = _column()
    classes[1:8, 180:189, 140:170] = DISC
    classes[4, 238:241, 100:104] = DISC
    spine = find_spine(_probability(classes), SLICE_MM)
    assert len(spine.discs) == 6


def test_a_look_alike_far_below_the_spine_does_not_shift_the_levels():
    classes = _column(discs=4, lowest_row=180)
    classes[1:8, 290:299, 70:106] = DISC
    classes[1:8, 190:290, 108:110] = CANAL
    spine = find_spine(_probability(classes), SLICE_MM)
    assert [round(disc.centroid[1]) for disc in spine.discs] == [180, 142, 104, 66]


def test_one_missed_disc_leaves_the_rest_and_doubt():
    classes = _column()
    classes[:, 180:190, 60:108] = 0
    spine = find_spine(_probability(classes), SLICE_MM)
    assert len(spine.discs) == 5
    assert not number_levels(spine).confident


def test_two_discs_joined_by_a_thread_are_parted():
    classes = _column()
    classes[4, 222:260, 90] = DISC
    assert len(find_spine(_probability(classes), SLICE_MM).discs) == 6


@pytest.mark.parametrize(
    ("classes", "word"),
    [
        (_column(discs=4), "4 discs"),
        (_column(discs=9, pitch=28), "9 discs"),
        (_column(lowest_row=312), "border"),
        (_column(pitch=52, discs=5), "distance"),
    ],
)
def test_doubtful_numbering_says_why(classes, word):
    numbering = number_levels(find_spine(_probability(classes), SLICE_MM))
    assert not numbering.confident
    assert word in str(numbering.reason)


def test_a_body_below_the_lowest_disc_makes_the_numbering_doubtful():
    classes = _column()
    classes[1:8, 266:294, 70:106] = VERTEBRA
    numbering = number_levels(find_spine(_probability(classes), SLICE_MM))
    assert "below the lowest disc" in str(numbering.reason)


@pytest.mark.parametrize("number", [VERTEBRA, CANAL, DISC])
def test_without_bodies_canal_or_discs_it_is_no_lumbar_spine(number):
    classes = _column()
    classes[classes == number] = 0
    with pytest.raises(PipelineError) as caught:
        require_lumbar(find_spine(_probability(classes), SLICE_MM))
    assert caught.value.reason_code == "not-lumbar-mr"


def test_an_empty_volume_is_no_lumbar_spine():
    with pytest.raises(PipelineError):
        require_lumbar(find_spine(_probability(np.zeros((3, 64, 64), np.uint8)), SLICE_MM))


def test_the_mask_at_twice_the_resolution_lies_where_the_classes_lie():
    classes = _column()
    probability = _probability(classes)
    spine = find_spine(probability, SLICE_MM)
    numbers = {disc.label: 10 + disc.label for disc in spine.discs}
    fine = to_original_resolution(probability, spine, {VERTEBRA: 1, CANAL: 2}, numbers, (640, 400), (0.47, 0.47))
    expected = np.repeat(np.repeat(spine.classes, 2, axis=1), 2, axis=2)
    for number, drawn in ((1, expected == VERTEBRA), (2, expected == CANAL)):
        dice = 2 * ((fine == number) & drawn).sum() / ((fine == number).sum() + drawn.sum())
        assert dice > 0.98
    assert set(np.unique(fine)) == {0, 1, 2, *numbers.values()}
