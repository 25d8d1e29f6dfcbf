"""Only valid predictions can be made: a finding is a value or a reason, a mask holds only named segments."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ai_services.prediction import Finding, Numbering, PipelineError, Prediction, Segment

ABSENT = {"absent_reason": "not-performed", "absent_text_en": "needs axial T2", "absent_text_zh": "需要轴位 T2"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"value": 1.0, **ABSENT},
        {"absent_reason": "not-performed"},
        {"absent_reason": "perhaps", "absent_text_en": "a", "absent_text_zh": "b"},
        {"value": float("nan")},
        {"value": "bulge", "unit": "mm"},
        {"value": "bulge", "confidence": 1.2},
    ],
)
def test_a_finding_that_says_nothing_or_two_things_is_refused(fields):
    with pytest.raises(ValueError, match="finding"):
        Finding("F01", "L4-L5", **fields)


def test_a_value_or_a_reason_is_accepted():
    assert Finding("F01", "L4-L5", value="bulge", confidence=0.5).absent_reason is None
    assert Finding("F08", None, **ABSENT).value is None


def _prediction(mask: np.ndarray, uids: tuple[str, ...]) -> Prediction:
    segments = (Segment(1, "vertebra", "vertebrae", None),)
    return Prediction("1", "2", uids, mask, np.eye(4), segments, (), Numbering("sacrum-only", True), ())


def test_a_mask_with_an_unnamed_number_or_missing_instances_is_refused():
    mask = np.ones((1, 2, 2), np.uint8)
    assert _prediction(mask, ("3",)).mask is mask
    with pytest.raises(ValueError, match="without a segment"):
        _prediction(mask * 2, ("3",))
    with pytest.raises(ValueError, match="slices"):
        _prediction(mask, ("3", "4"))


def test_a_pipeline_error_survives_the_way_between_processes():
    error = PipelineError("zero-slices", "no images", "无图像", retryable=True)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (again.reason_code, again.text_zh, again.retryable) == ("zero-slices", "无图像", True)
