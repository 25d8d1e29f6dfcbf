"""A spine that measures unlike the training discs is declined; the released range is that of the released grader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai_services.evaluation.folder import read_folder
from ai_services.imaging import artefacts
from ai_services.imaging.phantom import lumbar_phantom
from ai_services.imaging.volume import Volume
from ai_services.models.registry import load_manifest
from ai_services.pipelines.lumbar_mr.infer import load_networks
from ai_services.pipelines.lumbar_mr.pipeline import analyse
from ai_services.pipelines.lumbar_mr.training_range import TrainingRange, range_of, require_like_training
from ai_services.prediction import PipelineError

RANGE = TrainingRange(np.zeros(4), np.ones(4), 0.25)


def test_measures_outside_are_counted_and_those_that_are_missing_are_not() -> None:
    features = np.array([[0.5, 2.0, -1.0, np.nan], [0.0, 1.0, 0.3, np.nan]], dtype=np.float32)
    assert RANGE.outside(features) == pytest.approx(2 / 6)
    assert RANGE.outside(np.full((2, 4), np.nan, dtype=np.float32)) == 0


def test_the_limit_declines_with_a_reason_and_another_graders_range_says_nothing() -> None:
    manifest = load_manifest("lumbar_mr")
    known = range_of(manifest)
    assert known is not None, "python -m ai_services.training.lumbar_mr.training_range --write"
    assert len(known.low) == len(known.high) == 123
    assert (known.low < known.high).all()
    inside = np.tile((known.low + known.high) / 2, (5, 1)).astype(np.float32)
    require_like_training(inside, manifest)
    far = inside.copy()
    far[:, :20] = known.high[:20] + 1
    with pytest.raises(PipelineError) as refused:
        require_like_training(far, manifest)
    assert refused.value.reason_code == "unlike-training"
    assert not refused.value.retryable
    assert "16%" in refused.value.text_en
    others = {**manifest.constants, "training_range": {**manifest.constants["training_range"], "grading_sha256": "0"}}
    assert range_of(replace(manifest, constants=others)) is None


def test_a_phantom_is_like_the_training() -> None:
    """It was among the training of the outlines; every other test and the demonstration rest on it."""
    phantom = lumbar_phantom(0, slices=5, rows=224, columns=192, spacing_mm=(5.0, 1.4, 1.4))
    assert analyse(Volume(phantom.pixels.astype(np.float32), phantom.affine_lps), load_networks()).discs


@pytest.mark.test_data
def test_a_held_out_patient_is_analysed_and_with_bent_grey_values_declined(test_data: Path) -> None:
    """Squared grey values: the outlines hold, every other check passes, and the brightness means something else."""
    series = read_folder(test_data / "spider").still(57, "t2")
    assert series is not None
    assert analyse(series.volume, load_networks()).discs
    bent = replace(series.volume, array=artefacts.with_gamma(series.volume.array, 2.0))
    with pytest.raises(PipelineError) as refused:
        analyse(bent, load_networks())
    assert refused.value.reason_code == "unlike-training"


@pytest.mark.training
def test_the_released_range_is_the_one_that_the_released_grader_clips_to() -> None:
    from ai_services.training.lumbar_mr.training_range import block_of, clip_range, written

    manifest = load_manifest("lumbar_mr")
    known = range_of(manifest)
    assert known is not None
    for said, clipped in zip((known.low, known.high), clip_range(manifest), strict=True):
        np.testing.assert_allclose(said, clipped, rtol=1e-5)
    text = (manifest.models["grading"].path.parents[1] / "manifest.yaml").read_text(encoding="utf-8")
    assert written(text, block_of(manifest)) == text
    assert written(written("constants:\n  a: 1\nnotes:\n", "  training_range:\n    b: 2\n"), "  training_range:\n") == (
        "constants:\n  a: 1\n  training_range:\nnotes:\n"
    )
