"""The CT pipeline on a SYNTHETIC phantom whose labels and geometry are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ai_services.imaging.ct_phantom import CtPhantom
from ai_services.imaging.ct_phantom_bones import foramen_height_mm
from ai_services.prediction import Finding, Prediction
from ai_services.results.conclusion import conclusion_en, conclusion_zh
from ai_services.results.dicom_objects import build_objects
from ai_services.results.observation import build_numbering, build_observation
from tests.builders.ct_series import ct_series
from tests.builders.prediction import run_context

NAMES = ("L5", "L4", "L3", "L2")


def number_of(prediction: Prediction, name: str) -> int:
    (number,) = [item.number for item in prediction.segments if item.name == name]
    return number


def value(prediction: Prediction, code: str, level: str) -> float | None:
    (found,) = [item for item in prediction.findings if (item.code, item.level) == (code, level)]
    return None if found.value is None else float(found.value)


@pytest.mark.parametrize("name", NAMES)
def test_bodies_and_arches_lie_where_they_were_drawn(phantom: CtPhantom, prediction: Prediction, name: str) -> None:
    for part, least in (("body", 0.93), ("arch", 0.75)):
        found = prediction.mask == number_of(prediction, f"{name} vertebral {part}")
        drawn = phantom.labels == phantom.label_of[name, part]
        dice = 2 * (found & drawn).sum() / (found.sum() + drawn.sum())
        assert dice > least, (part, dice)


def test_vertebrae_are_counted_from_the_sacrum(prediction: Prediction) -> None:
    assert [item.level for item in prediction.segments][:5] == ["S1", "L5", "L5", "L4", "L4"]
    assert prediction.numbering.method == "sacrum-only"
    assert prediction.numbering.confident
    assert prediction.numbering.probability is None, "it was not measured on patients"


@pytest.mark.parametrize("name", NAMES)
def test_pedicles_and_canal_measure_what_was_drawn(phantom: CtPhantom, prediction: Prediction, name: str) -> None:
    shape = phantom.shapes[name]
    drawn = {
        "pedicle-width-right": shape.pedicle_width_mm[0],
        "pedicle-width-left": shape.pedicle_width_mm[1],
        "canal-width-bone": shape.canal_width_mm,
        "canal-ap-bone": shape.canal_depth_mm,
    }
    for code, true in drawn.items():
        found = value(prediction, code, name)
        assert found is not None, code
        assert found == pytest.approx(true, abs=1.6), code


def test_facet_angles_are_right_or_absent_with_a_reason(phantom: CtPhantom, prediction: Prediction) -> None:
    errors = []
    for level, lower in (("L4-L5", "L5"), ("L3-L4", "L4"), ("L2-L3", "L3")):
        for side, true in zip(("right", "left"), phantom.shapes[lower].facet_deg, strict=True):
            found = value(prediction, f"facet-angle-{side}", level)
            if found is not None:
                errors.append(abs(found - true))
    assert len(errors) >= 3
    assert max(errors) < 8
    absent = [item for item in prediction.findings if item.value is None]
    assert absent, "the sacrum's pedicle is never measured"
    assert all(item.absent_text_en and item.absent_text_zh for item in absent)


def test_foramina_are_between_the_pedicles(phantom: CtPhantom, prediction: Prediction) -> None:
    bones = {bone.shape.name: bone for bone in phantom.bones}
    for number, side in enumerate(("right", "left")):
        height = value(prediction, f"foramen-height-{side}", "L3-L4")
        assert height is not None
        assert height == pytest.approx(foramen_height_mm(bones["L3"], bones["L4"], number), abs=1.5)


def test_every_number_has_unit_method_and_uncertainty(prediction: Prediction) -> None:
    numbers = [item for item in prediction.findings if item.value is not None]
    assert len(numbers) > 30
    for item in numbers:
        assert item.unit in {"mm", "mm2", "deg"}
        assert item.method == "derived"
        assert item.uncertainty is not None
        assert item.uncertainty > 0
        assert item.confidence is None, "nothing to calibrate a confidence on"


def test_results_say_on_what_they_were_made(prediction: Prediction) -> None:
    assert "SYNTHETIC-trained and UNVERIFIED" in conclusion_en(prediction)
    assert "未经验证 UNVERIFIED" in conclusion_zh(prediction)
    context = run_context(pipeline="lumbar_ct")
    vertebra = next(item for item in prediction.findings if item.level == "L4")
    made = build_observation(vertebra, prediction, context, "Device/x")
    assert made["bodySite"]["coding"][0]["code"] == "11994002"
    assert "SYNTHETIC-trained" in made["note"][0]["text"]
    assert (
        "SYNTHETIC-trained" in build_numbering(prediction.numbering, prediction, context, "Device/x")["note"][0]["text"]
    )


def test_seg_and_sr_are_valid_and_name_body_arch_and_vertebra(
    phantom: CtPhantom, prediction: Prediction, tmp_path: Path
) -> None:
    series = ct_series(phantom, FrameOfReferenceUID="1.2.3.9", PatientSex="O", KVP=120, AcquisitionNumber=1)
    # The pipeline saw other instances of the same phantom: give these the UIDs that it names.
    for dataset, uid in zip(series, prediction.sop_instance_uids, strict=True):
        dataset.SOPInstanceUID = uid
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
            prediction.study_instance_uid,
            prediction.series_instance_uid,
        )
    objects = {item.Modality: item for item in build_objects(prediction, series, run_context(pipeline="lumbar_ct"))}
    assert set(objects) == {"SEG", "SR"}, "no disc is graded, so there is no key image"
    segments = {str(item.SegmentLabel): item for item in objects["SEG"].SegmentSequence}
    assert segments["L4 vertebral arch"].SegmentedPropertyTypeCodeSequence[0].CodeValue == "40265002"
    assert segments["L4 vertebral body"].SegmentedPropertyTypeCodeSequence[0].CodeValue == "11994002"
    assert "MR Lumbar" not in str(objects["SR"])
    for kind, made in objects.items():
        file = tmp_path / f"{kind}.dcm"
        made.save_as(file, enforce_file_format=True)
        told = subprocess.run(
            [Path(sys.executable).with_name("dciodvfy"), "-new", file], capture_output=True, text=True, check=False
        ).stderr
        assert [line for line in told.splitlines() if line.startswith("Error")] == [], kind


def test_findings_are_of_the_segments_that_they_name(prediction: Prediction) -> None:
    named = {item.number: item.level for item in prediction.segments}

    def fits(item: Finding) -> bool:
        return item.level is not None and str(named[item.segment_number or 0]) == item.level.partition("-")[0]

    assert all(fits(item) for item in prediction.findings)
    assert set(np.unique(prediction.mask)) == {0, *named}
