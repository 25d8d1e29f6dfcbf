"""Slices side by side: the same probabilities, bit for bit, as one after the other, and the first fault is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ai_services.imaging.geometry import volume_from_datasets
from ai_services.imaging.phantom import lumbar_phantom
from ai_services.imaging.volume import Volume
from ai_services.models import runtime
from ai_services.models.registry import load_manifest
from ai_services.pipelines.lumbar_mr.infer import Networks
from ai_services.pipelines.lumbar_mr.outline import runtime_faults
from ai_services.pipelines.lumbar_mr.pipeline import analyse
from ai_services.pipelines.lumbar_mr.preprocess import prepare
from ai_services.prediction import PipelineError
from tests.builders.mr_series import mr_series, space_patient


@pytest.fixture
def restored_execution() -> Iterator[None]:
    before = runtime.current_execution()
    yield
    runtime.configure(before)


def networks_on(threads: int) -> Networks:
    runtime.configure(runtime.Execution("cpu", threads))
    return Networks(load_manifest("lumbar_mr"))


@pytest.mark.usefixtures("restored_execution")
@pytest.mark.parametrize("slice_mm", [4.0, 1.5])
def test_a_slice_a_thread_changes_no_bit(slice_mm: float) -> None:
    phantom = lumbar_phantom(3, slices=9, rows=200, columns=160, spacing_mm=(slice_mm, 1.4, 1.4))
    working = prepare(Volume(phantom.pixels.astype(np.float32), phantom.affine_lps)).working
    alone, side_by_side = networks_on(1), networks_on(3)
    np.testing.assert_array_equal(side_by_side.segment(working, slice_mm), alone.segment(working, slice_mm))
    turned = np.stack([working[4], working[4][::-1], working[4][:, ::-1]])
    np.testing.assert_array_equal(side_by_side.segment_images(turned), alone.segment_images(turned))


@pytest.mark.test_data
@pytest.mark.usefixtures("restored_execution")
def test_a_patient_is_outlined_and_graded_the_same_on_any_number_of_threads(test_data: Path) -> None:
    pixels, _, affine = space_patient(test_data, 110)
    volume = volume_from_datasets(mr_series(pixels, affine)).volume
    alone, side_by_side = (analyse(volume, networks_on(threads)) for threads in (1, 3))
    np.testing.assert_array_equal(side_by_side.mask, alone.mask)
    assert [(f.code, f.level, f.value) for f in side_by_side.findings] == [
        (f.code, f.level, f.value) for f in alone.findings
    ]
    for one, other in zip(side_by_side.discs, alone.discs, strict=True):
        assert one.pfirrmann == pytest.approx(other.pfirrmann, abs=1e-5)


@pytest.mark.usefixtures("restored_execution")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_fault_in_any_thread_is_the_pipelines_fault(threads: int) -> None:
    networks = networks_on(threads)
    with pytest.raises(PipelineError, match="model-output-invalid"), runtime_faults():
        networks.segment_images(np.zeros((4, 32, 32), np.float64))  # not the type that the graph takes
