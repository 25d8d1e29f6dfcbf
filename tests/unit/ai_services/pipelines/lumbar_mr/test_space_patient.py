"""Real T2 SPACE patients whom no network has seen: the accuracy that the model card states holds here too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from ai_services.pipelines.lumbar_mr.pipeline import run
from ai_services.prediction import PipelineError
from tests.builders.mr_series import mr_series, space_patient

pytestmark = pytest.mark.test_data
# Held out of segmentation and grading alike (MODEL_CARD.md, Split).
HELD_OUT = (52, 110)
MINIMUM_DICE = {"vertebra": 0.90, "disc": 0.86, "canal": 0.84}


@pytest.mark.parametrize("patient", HELD_OUT)
def test_unseen_patient_is_segmented_and_numbered(test_data: Path, patient):
    pixels, truth, affine = space_patient(test_data, patient)
    prediction = run(mr_series(pixels, affine))
    truth = truth[::-1]  # ascending along the normal
    discs = [segment.number for segment in prediction.segments if segment.label == "disc"]
    vertebrae = [segment.number for segment in prediction.segments if segment.label.startswith("vertebra")]
    for name, found, actual in (
        ("vertebra", np.isin(prediction.mask, vertebrae), truth == 1),
        ("disc", np.isin(prediction.mask, discs), truth == 2),
        ("canal", prediction.mask == 2, truth == 3),
    ):
        dice = 2 * (found & actual).sum() / (found.sum() + actual.sum())
        assert dice > MINIMUM_DICE[name], name
    assert prediction.numbering.confident
    levels = [segment.level for segment in prediction.segments if segment.label == "disc"]
    assert levels[:6] == ["L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1"]
    for finding in prediction.findings:
        if finding.code == "canal-ap" and finding.value is not None:
            assert 5 < float(finding.value) < 28
        if finding.code == "F13" and finding.value is not None:
            assert 0.05 < float(finding.value) < 0.7


@pytest.mark.parametrize("folder", ["ge_mprage", "philips_classic"])
def test_a_real_head_that_slips_through_the_header_check_is_still_no_lumbar_spine(test_data: Path, folder):
    datasets = [
        pydicom.dcmread(path) for path in sorted((test_data / "dicom" / folder).iterdir()) if path.name != "LICENSE"
    ]
    with pytest.raises(PipelineError) as caught:
        run(datasets)
    assert caught.value.reason_code in {"not-lumbar-mr", "not-sagittal", "missing-slices"}
