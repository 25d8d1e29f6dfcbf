"""Scores become calibrated probabilities, grades I to V and an honest morphology."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_services.pipelines.lumbar_mr.grade import Calibration, grade_discs, pfirrmann_probabilities

PLAIN = Calibration(1.0, (1.0, 0.0), (1.0, 0.0), (1.0, 0.0), 0.5, 0.5)


@given(st.lists(st.floats(-50, 50), min_size=4, max_size=4), st.floats(0.2, 5))
def test_probabilities_are_a_distribution_whatever_the_scores(scores, temperature):
    row = pfirrmann_probabilities(np.array([scores]), temperature)[0]
    assert row.min() >= 0
    assert row.sum() == pytest.approx(1)


@pytest.mark.parametrize("grade", [1, 2, 3, 4, 5])
def test_each_grade_can_be_reached(grade):
    cumulative = [8.0 if grade > step else -8.0 for step in range(1, 5)]
    (result,) = grade_discs(np.array([[*cumulative, -3, -3, -3]]), PLAIN)
    assert result.pfirrmann == grade
    assert result.pfirrmann_expected == pytest.approx(grade, abs=0.05)
    assert result.pfirrmann_probability > 0.9


@pytest.mark.parametrize(
    ("bulging", "herniation", "expected"),
    [(-4, -4, "normal"), (4, -4, "bulge"), (-4, 4, "herniation-unspecified"), (4, 4, "herniation-unspecified")],
)
def test_morphology_never_claims_a_type_that_the_labels_do_not_know(bulging, herniation, expected):
    (result,) = grade_discs(np.array([[0, 0, 0, 0, bulging, herniation, 0]], float), PLAIN)
    assert result.morphology == expected
    assert result.morphology_probability > 0.9
