"""Uncertain outlines are refused, unsure discs are not graded, and odd columns make the numbering doubtful."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ai_services.pipelines.lumbar_mr.findings import LEAST_GRADE_PROBABILITY, level_findings, level_not_sure
from ai_services.pipelines.lumbar_mr.grade import DiscGrade
from ai_services.pipelines.lumbar_mr.numbering import RIGHT_WHERE_CLEAR, RIGHT_WHERE_IN_DOUBT, assess_numbering
from ai_services.pipelines.lumbar_mr.postprocess import CANAL, DISC, VERTEBRA, Spine, find_spine
from ai_services.pipelines.lumbar_mr.suitability import (
    LARGEST_VOID_MM2,
    largest_void_mm2,
    require_covered,
    require_lumbar,
    require_t2,
)
from ai_services.pipelines.lumbar_mr.uncertainty import (
    LARGEST_DISC_ENTROPY,
    RIM_PIXELS,
    normalised_entropy,
    require_certain,
    uncertainty_of,
)
from ai_services.prediction import PipelineError

SLICE_MM = 4.0


def _classes(discs: int = 6, pitch: int = 38, lowest_depth: int = 36, lowest_row: int = 260) -> np.ndarray:
    """Classes (slice, row, column) of a straight spine."""
    classes = np.zeros((9, 320, 200), np.uint8)
    classes[2:7, 20 : lowest_row + 20, 110:126] = CANAL
    for number in range(discs):
        row = lowest_row - number * pitch
        depth = lowest_depth if number == 0 else 36
        classes[1:8, row - 4 : row + 5, 106 - depth : 106] = DISC
        classes[1:8, row - pitch + 5 : row - 4, 70:106] = VERTEBRA
    return classes


def _probability(classes: np.ndarray, sure: float = 0.94) -> np.ndarray:
    rest = (1 - sure) / 3
    one_hot = np.stack([classes == number for number in range(4)], axis=1)
    return np.where(one_hot, sure, rest).astype(np.float32)


def _spine(classes: np.ndarray) -> Spine:
    return find_spine(_probability(classes), SLICE_MM)


def test_entropy_is_0_where_certain_and_1_where_it_is_a_guess():
    certain, guess = np.zeros((1, 4, 1, 2), np.float32), np.full((1, 4, 1, 2), 0.25, np.float32)
    certain[0, 2] = 1
    assert normalised_entropy(certain).max() < 1e-4
    np.testing.assert_allclose(normalised_entropy(guess), 1, atol=1e-6)


def test_the_uncertainty_is_the_mean_entropy_of_a_structure_with_its_rim():
    probability = np.random.default_rng(5).dirichlet([1.0] * 4, (9, 320, 200)).astype(np.float32).transpose(0, 3, 1, 2)
    classes = _classes(lowest_row=318 - RIM_PIXELS)  # the rim of the lowest disc reaches the border
    spine = _spine(classes)
    entropy = normalised_entropy(probability)
    disk = np.ones((1, 2 * RIM_PIXELS + 1, 2 * RIM_PIXELS + 1), bool)

    def mean(inside: np.ndarray) -> float:
        return float(entropy[ndimage.binary_dilation(inside, disk)].mean())

    found = uncertainty_of(spine, probability)
    assert found.vertebra == pytest.approx(mean(spine.classes == VERTEBRA), rel=1e-5)
    assert found.canal == pytest.approx(mean(spine.classes == CANAL), rel=1e-5)
    assert found.discs == pytest.approx([mean(spine.instances == disc.label) for disc in spine.discs], rel=1e-5)


def test_each_structure_has_its_own_uncertainty():
    classes = _classes()
    probability = _probability(classes)
    spine = find_spine(probability, SLICE_MM)
    torn = probability.copy()
    torn[:, :, 255:266] = _probability(classes, 0.5)[:, :, 255:266]
    sure, unsure = uncertainty_of(spine, probability), uncertainty_of(spine, torn)
    assert unsure.discs[0] > LARGEST_DISC_ENTROPY > sure.discs[0]
    assert unsure.discs[1:] == sure.discs[1:]
    require_certain(unsure)  # one torn disc alone does not make the volume unusable


def test_outlines_that_are_a_guess_are_refused():
    classes = _classes()
    guess = uncertainty_of(_spine(classes), _probability(classes, 0.5))
    with pytest.raises(PipelineError) as caught:
        require_certain(guess)
    assert caught.value.reason_code == "uncertain-segmentation"


def test_nothing_outlined_is_not_certain():
    empty = np.zeros((3, 40, 40), np.uint8)
    assert uncertainty_of(_spine(empty), _probability(empty)).largest == 1


def test_an_unsure_disc_has_no_value_and_says_why():
    found = level_not_sure("L5-S1", 3)
    assert {item.code for item in found} == {"F01", "F06", "F13", "canal-ap"}
    assert all(item.value is None and item.absent_reason == "unknown" and item.absent_text_zh for item in found)


@pytest.mark.parametrize(
    ("probability", "told"), [(LEAST_GRADE_PROBABILITY - 0.01, False), (LEAST_GRADE_PROBABILITY, True)]
)
def test_a_grade_that_is_not_likely_enough_is_withheld_with_its_reason(probability, told):
    rest = (1 - probability) / 4
    grade = DiscGrade(3, probability, 3.1, 1.2, "bulge", 0.7, (rest, rest, probability, rest, rest), {"bulging": 0.7})
    found = {item.code: item for item in level_findings("L4-L5", 4, grade, None, None, 4.0, 15)}
    assert (found["F06"].value == "3") is told
    assert (found["F06"].absent_reason == "unknown") is not told
    assert found["F01"].value == "bulge"


def test_a_regular_column_is_numbered_with_the_measured_chance_to_be_right():
    classes = _classes()
    numbering = assess_numbering(_spine(classes), uncertainty_of(_spine(classes), _probability(classes)))
    assert (numbering.confident, numbering.probability, numbering.transitional) == (True, RIGHT_WHERE_CLEAR, False)


def test_a_short_lowest_disc_flags_a_possible_transitional_vertebra():
    classes = _classes(lowest_depth=22)
    numbering = assess_numbering(_spine(classes), uncertainty_of(_spine(classes), _probability(classes)))
    assert (numbering.confident, numbering.probability, numbering.transitional) == (False, RIGHT_WHERE_IN_DOUBT, True)
    assert "transitional" in str(numbering.reason)


@pytest.mark.parametrize(
    ("classes", "code"),
    [
        (_classes(discs=9, pitch=22), "implausible-scale"),
        (_classes(discs=5, pitch=52), "implausible-scale"),
        (_classes(discs=4), "incomplete-coverage"),
        (_classes(lowest_row=298), "incomplete-coverage"),
    ],
    ids=["a neck's distances", "too far apart", "four discs", "cut below"],
)
def test_what_is_no_whole_lumbar_spine_is_refused(classes, code):
    with pytest.raises(PipelineError) as caught:
        require_lumbar(_spine(classes))
    assert caught.value.reason_code == code


def test_slices_that_end_at_the_canals_middle_do_not_cover_it():
    with pytest.raises(PipelineError) as caught:
        require_covered(_spine(_classes()[4:]))
    assert caught.value.reason_code == "incomplete-coverage"


def test_a_void_in_a_body_is_found_and_a_dark_disc_or_lung_is_none():
    classes = _classes()
    spine = _spine(classes)
    grey = np.choose(classes, [0.02, 0.5, 0.03, 0.9]).astype(np.float32)
    assert largest_void_mm2(spine, grey) < LARGEST_VOID_MM2
    grey[4, 235:247, 80:96] = 0
    assert largest_void_mm2(spine, grey) > LARGEST_VOID_MM2


def test_marrow_brighter_than_fluid_is_no_t2():
    classes = _classes()
    grey = np.choose(classes, [0.02, 0.6, 0.3, 0.2]).astype(np.float32)
    with pytest.raises(PipelineError) as caught:
        require_t2(_spine(classes), grey)
    assert caught.value.reason_code == "not-t2"
    require_t2(_spine(classes), np.choose(classes, [0.02, 0.4, 0.3, 0.9]).astype(np.float32))
