"""Doing a run again: what is called the same, what different, and when it cannot be done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai_services.models.registry import Manifest, ModelFile
from ai_services.prediction import PipelineError, Prediction
from ai_services.results.comparison import compare_masks, compare_observations, observations_of
from ai_services.results.dicom_objects import build_objects, result_objects
from ai_services.results.provenance import build_provenance
from ai_services.results.reproduce import CannotError, Outcome, reproduce
from ai_services.results.run_record import observe_computation, read_record, record_run
from foramen.kernel.errors import NotFoundError
from terminology import systems
from tests.builders.prediction import MODEL, findings, prediction, run_context, source_datasets

MANIFEST = Manifest("lumbar_mr", "9.0.0", "cd" * 32, "", "", {"all": ModelFile("all", MODEL, None)}, {})  # type: ignore[arg-type]
CONTEXT = run_context(pipeline_version=f"{MODEL.name} {MODEL.version} {MODEL.sha256[:12]}")


class World:
    """Record and archive as a run left them."""

    def __init__(self) -> None:
        self.series = source_datasets()
        made = prediction()
        self.stored = build_objects(made, self.series, CONTEXT)
        record = record_run(made, CONTEXT, observe_computation(made, self.series, MANIFEST))
        self.observations = observations_of(made, CONTEXT)
        self.provenance = build_provenance(
            targets=[f"Observation/{number}" for number in range(len(self.observations))],
            devices=["Device/1"],
            sources=["ImagingStudy/is1"],
            sop_instance_uids=made.sop_instance_uids,
            recorded=CONTEXT.instant,
            activity="ai-derive",
            synthetic=True,
            objects=result_objects(made, CONTEXT),
            run=record,
        )
        self.asked: list[str] = []

    async def read(self, reference: str) -> dict[str, Any]:
        self.asked.append(reference)
        kind, identity = reference.split("/")[:2]
        if kind == "Provenance" and identity == "1":
            return self.provenance
        if kind == "Device":
            return {"identifier": [{"system": systems.IDENTIFIER_MODEL, "value": MODEL.sha256}]}
        if kind == "Observation":
            return self.observations[int(identity)]
        raise NotFoundError("nothing")

    def retrieve_series(self, study: str, series: str) -> list[Dataset]:
        found = [item for item in [*self.series, *self.stored] if str(item.SeriesInstanceUID) == series]
        if not found:
            raise NotFoundError("nothing")
        return found

    def again(self, now: Prediction | Exception | None = None, provenance: str = "1") -> Outcome:
        def run(series: Sequence[Dataset], _: Manifest) -> Prediction:
            if isinstance(now, Exception):
                raise now
            return now or prediction()

        return asyncio.run(reproduce(self.read, self, provenance, lambda _: MANIFEST, run))


def test_the_record_survives_the_provenance() -> None:
    world = World()
    record = read_record(world.provenance)
    assert record == record_run(prediction(), CONTEXT, observe_computation(prediction(), world.series, MANIFEST))
    assert len(record.inputs) == 5
    assert record.software["numpy"] == np.__version__


def test_the_same_run_is_the_same() -> None:
    world = World()
    outcome = world.again()
    assert outcome.verdict == "same"
    assert outcome.mask_identical
    assert {item.dice for item in outcome.segments} == {1.0}
    assert outcome.findings == len(findings()) + 1
    assert "Observation/0/_history/1" in world.asked, "what persons changed later is not what the run said"


def test_one_voxel_and_one_grade_are_found() -> None:
    mask = prediction().mask.copy()
    mask[2, 24, 11] = 0
    items = tuple(
        replace(item, value="5") if (item.code, item.level) == ("F06", "L4-L5") else item for item in findings()
    )
    outcome = World().again(replace(prediction(items=items), mask=mask))
    assert outcome.verdict == "different"
    assert not outcome.mask_identical
    assert [item.name for item in outcome.segments if not item.same] == ["L4-L5 disc"]
    assert {item.what.split(".")[0] for item in outcome.differences} == {"F06 L4-L5 valueCodeableConcept"}


def test_a_number_within_the_tolerance_is_the_same_and_one_beyond_is_not() -> None:
    before = observations_of(prediction(), CONTEXT)

    def moved(by: float) -> int:
        items = tuple(
            replace(item, value=item.value + by) if isinstance(item.value, float) else item for item in findings()
        )
        return len(compare_observations(before, observations_of(prediction(items=items), CONTEXT))[1])

    assert (moved(0.001), moved(0.02)) == (0, 3)


def test_a_finding_that_is_gone_or_became_absent_is_a_difference() -> None:
    before, fewer = observations_of(prediction(), CONTEXT), observations_of(prediction(items=findings()[1:]), CONTEXT)
    assert [(item.then, item.now) for item in compare_observations(before, fewer)[1]] == [("present", "absent")]


def test_a_run_that_now_declines_is_different() -> None:
    outcome = World().again(PipelineError("not-lumbar-mr", "no spine", "无"))
    assert outcome.verdict == "different"
    assert outcome.differences[0].now == "declined: not-lumbar-mr"


def test_what_cannot_be_done_again_says_why() -> None:
    def reason(change: Any, **more: Any) -> str:
        world = World()
        change(world)
        with pytest.raises(CannotError) as caught:
            world.again(**more)
        return str(caught.value)

    def other_pixel(world: World) -> None:
        world.series[2].PixelData = b"\x01" + world.series[2].PixelData[1:]

    def other_place(world: World) -> None:
        world.series[2].ImagePositionPatient = [0.5, -60.0, 90.0]

    def without_record(world: World) -> None:
        del world.provenance["extension"]

    def other_weights(world: World) -> None:
        world.provenance["agent"] = []

    assert reason(other_pixel).startswith("1 of 5 images are not what was analysed")
    assert reason(other_place).startswith("1 of 5 images are not what was analysed")
    assert reason(lambda world: world.series.pop()).startswith("1 of 5 images are not in the archive")
    assert reason(lambda world: world.series.clear()) == "the images are not in the archive, or are rejected"
    assert reason(lambda world: world.stored.clear()).startswith("its segmentation is not in the archive")
    assert reason(without_record).startswith("this Provenance names no analysis run")
    assert reason(other_weights).startswith("the models that the Provenance names")
    assert reason(lambda _: None, provenance="2") == "the Provenance is not in the record"
    integrity = PipelineError("model-integrity", "other bytes", "无")
    assert reason(lambda _: None, now=integrity).startswith("the weights are not there")


def test_masks_of_other_shape_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shape"):
        compare_masks(np.zeros((2, 2, 2), dtype=np.uint8), np.zeros((1, 2, 2), dtype=np.uint8), ())
