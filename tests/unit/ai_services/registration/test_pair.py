"""From two DICOM series to a registration or a refusal, by the real pipelines; SYNTHETIC phantoms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai_services.pipelines.lumbar_ct.pipeline import run as run_ct
from ai_services.pipelines.lumbar_mr.pipeline import run as run_mr
from ai_services.prediction import PipelineError, Prediction
from ai_services.registration.pair import complete_bodies, register_pair, require_pair
from ai_services.registration.quality import target_error_mm
from ai_services.registration.register import Registration
from ai_services.registration.results import Sources, build_registration
from ai_services.registration.run import Pair, context_of, spatial_registration
from ai_services.results.run_record import input_hashes
from ai_services.workflow.pipelines import CT, MR, kind_of
from tests.builders.ct_series import ct_series
from tests.builders.mr_of_ct import TRUE, ct_of_the_pair, mr_of_the_pair
from tests.builders.mr_series import mr_series, space_patient

COMMON = {"PatientID": "SYN-1", "IssuerOfPatientID": "DEMO", "StudyDate": "20261123", "StudyTime": "080000"}
LARGEST_ERROR_MM = 1.0


@dataclass(frozen=True)
class Given:
    ct: list[Dataset]
    mr: list[Dataset]
    ct_seen: Prediction
    mr_seen: Prediction


@pytest.fixture(scope="module")
def given() -> Given:
    ct = ct_series(ct_of_the_pair(), FrameOfReferenceUID="1.2.3.1", StudyInstanceUID="1.2.3.10", **COMMON)
    mr = mr_of_the_pair(FrameOfReferenceUID="1.2.3.2", StudyInstanceUID="1.2.3.20", **COMMON)
    return Given(ct, mr, run_ct(ct), run_mr(mr))


@pytest.fixture(scope="module")
def registration(given: Given) -> Registration:
    return register_pair(given.ct, given.ct_seen, given.mr, given.mr_seen)


def test_both_pipelines_and_the_registration_find_the_known_place(given: Given, registration: Registration) -> None:
    names = {name for name, _ in complete_bodies(given.mr_seen)}
    assert names == {"L1", "L2", "L3", "L4", "L5"}  # T12 is cut by the field of view
    points = np.array([[0.0, 0.0, z] for z in (-60, -30, 0, 30, 60)])
    assert target_error_mm(registration.transform, TRUE, points).max() < LARGEST_ERROR_MM
    assert registration.quality.vertebrae == len(names)


def test_the_same_run_has_the_same_object_and_resources_whenever_it_is_stored(
    given: Given, registration: Registration
) -> None:
    study = {"resourceType": "ImagingStudy", "id": "a", "subject": {"reference": "Patient/p"}}
    pair = Pair((study, {**study, "id": "b"}), (given.ct, given.mr), (given.ct_seen, given.mr_seen), registration)
    contexts = [context_of(pair, datetime(2026, 11, day, tzinfo=UTC)) for day in (22, 23)]
    made = [spatial_registration(pair, context) for context in contexts]
    assert made[0].SOPInstanceUID == made[1].SOPInstanceUID
    models = [*given.ct_seen.models, *given.mr_seen.models]
    inputs = input_hashes(given.ct) | input_hashes(given.mr)
    sources = Sources(("ImagingStudy/a", "ImagingStudy/b"), ("1.2.3.11", "1.2.3.21"), inputs, models)
    bundles = [build_registration(registration, context, sources, made[0].SOPInstanceUID) for context in contexts]
    keys = [[(e["fullUrl"], e["request"]["ifNoneExist"]) for e in bundle["entry"]] for bundle in bundles]
    assert keys[0] == keys[1]
    (observation,) = [e["resource"] for e in bundles[0]["entry"] if e["resource"]["resourceType"] == "Observation"]
    assert observation["status"] == "preliminary"
    units = {
        part["code"]["coding"][0]["code"]: part.get("valueQuantity", {}).get("unit")
        for part in observation["component"]
    }
    assert units == {
        "surface-distance": "mm",
        "overlap": "1",
        "centroid-distance": "mm",
        "start-spread": "mm",
        "vertebrae": None,
    }
    (provenance,) = [e["resource"] for e in bundles[0]["entry"] if e["resource"]["resourceType"] == "Provenance"]
    assert len(provenance["agent"]) == 1 + len(models)
    images = [entity for entity in provenance["entity"] if "identifier" in entity["what"]]
    assert len(images) == len(given.ct) + len(given.mr)
    assert all("extension" in image for image in images)


def changed(series: Sequence[Dataset], **attributes: object) -> list[Dataset]:
    copies = [deepcopy(dataset) for dataset in series]
    for dataset in copies:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
    return copies


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"PatientID": "SYN-2"}, "different-patients"),
        ({"IssuerOfPatientID": "NORTH"}, "different-patients"),
        ({"PatientID": ""}, "different-patients"),
        ({"FrameOfReferenceUID": "1.2.3.2"}, "same-frame-of-reference"),
        ({"FrameOfReferenceUID": ""}, "frame-of-reference-missing"),
    ],
)
def test_series_that_do_not_belong_together_are_refused_by_their_headers(
    given: Given, attributes: dict[str, str], code: str
) -> None:
    ct = changed(given.ct, **attributes)
    for refused in (
        lambda: require_pair(ct, given.mr),
        lambda: register_pair(ct, given.ct_seen, given.mr, given.mr_seen),
    ):
        with pytest.raises(PipelineError) as told:
            refused()
        assert told.value.reason_code == code


def test_two_frames_in_one_series_are_refused(given: Given) -> None:
    mixed = [*given.ct[:-1], *changed(given.ct[-1:], FrameOfReferenceUID="1.2.3.3")]
    with pytest.raises(PipelineError) as told:
        require_pair(mixed, given.mr)
    assert told.value.reason_code == "frame-of-reference-missing"


def looked_at(pipeline: str, series: list[Dataset]) -> Prediction:
    """Chosen by its headers, then read: as a registration does."""
    kind = kind_of(pipeline)
    kind.select([series]).require()
    return kind.run(series, None)


def upside_down(series: list[Dataset]) -> list[Dataset]:
    """Positions and orientation say that the head is where the feet are."""
    turned = changed(series)
    for dataset in turned:
        x, y, z = (float(value) for value in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y, -z]
    return turned


def mirrored(series: list[Dataset]) -> list[Dataset]:
    """The header says that the back is in front."""
    turned = changed(series)
    for dataset in turned:
        dataset.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    return turned


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (lambda series: series[: len(series) // 2], {"incomplete-coverage", "sacrum-not-seen", "not-lumbar-ct"}),
        (lambda series: series[len(series) // 2 :], {"incomplete-coverage", "sacrum-not-seen", "not-lumbar-ct"}),
        (lambda series: series[:30] + series[40:], {"missing-slices", "non-uniform-spacing"}),
        (lambda series: series[60:61], {"too-few-slices"}),
        (upside_down, {"incomplete-coverage", "sacrum-not-seen", "not-lumbar-ct"}),
        (mirrored, {"incomplete-coverage", "sacrum-not-seen", "not-lumbar-ct"}),
    ],
    ids=["lower half", "upper half", "a gap", "one slice", "upside down", "mirrored"],
)
def test_a_ct_that_cannot_be_read_is_refused_before_anything_is_registered(
    given: Given, change: Callable[[list[Dataset]], list[Dataset]], codes: set[str]
) -> None:
    series = change(given.ct)
    with pytest.raises(PipelineError) as told:
        looked_at(CT, series)
    assert told.value.reason_code in codes


def test_an_mr_series_of_one_slice_or_turned_is_refused(given: Given) -> None:
    for series in ([given.mr[7]], changed(given.mr, ImageOrientationPatient=[0, -1, 0, 0, 0, 1])):
        with pytest.raises(PipelineError) as told:
            looked_at(MR, series)
        assert told.value.reason_code in {"too-few-slices", "orientation-contradicts-image", "field-of-view-too-small"}


def test_images_without_vertebrae_in_common_are_refused_with_the_reason(given: Given) -> None:
    kept = [segment for segment in given.mr_seen.segments if segment.level in ("L5-S1", "L4-L5", "L3-L4", "L5", "L4")]
    mask = np.where(np.isin(given.mr_seen.mask, [segment.number for segment in kept]), given.mr_seen.mask, 0)
    few = replace(given.mr_seen, mask=mask.astype(np.uint8), segments=tuple(kept))
    with pytest.raises(PipelineError, match="2 landmarks in common, at least 3") as told:
        register_pair(given.ct, given.ct_seen, given.mr, few)
    assert told.value.reason_code == "not-registered"
    nothing = replace(given.mr_seen, mask=np.zeros_like(mask, dtype=np.uint8))
    with pytest.raises(PipelineError, match="no whole vertebra"):
        register_pair(given.ct, given.ct_seen, given.mr, nothing)


def test_a_real_spine_is_not_laid_on_the_phantom_of_another(given: Given, test_data: Path) -> None:
    pixels, _, affine = space_patient(test_data, 5)
    real = mr_series(pixels, affine, FrameOfReferenceUID="1.2.3.5", SeriesDescription="T2 SPACE", **COMMON)
    with pytest.raises(PipelineError) as told:
        register_pair(given.ct, given.ct_seen, real, run_mr(real))
    assert told.value.reason_code == "not-registered"
    assert "at most" in told.value.text_en
    assert "重叠度" in told.value.text_zh


def test_a_prediction_of_other_images_is_a_fault_and_no_registration(given: Given) -> None:
    with pytest.raises(ValueError, match="other images"):
        register_pair(given.ct, given.ct_seen, given.mr[1:], given.mr_seen)
