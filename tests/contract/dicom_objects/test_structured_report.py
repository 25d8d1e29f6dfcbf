"""The SR object as others read it: TID 1500 groups per disc, unverified, readable by highdicom and dcmtk."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import highdicom
from pydicom.dataset import Dataset

from ai_services.results.dicom_seg import build_segmentation
from ai_services.results.dicom_sr import build_structured_report
from tests.builders.prediction import findings, prediction, run_context, source_datasets


def build() -> Dataset:
    made, sources, context = prediction(), source_datasets(), run_context()
    return build_structured_report(made, sources, build_segmentation(made, sources, context), context)


def written(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def groups() -> list[highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    report = highdicom.sr.srread(BytesIO(written(build())))
    return report.content.get_volumetric_roi_measurement_groups()


def test_one_group_a_disc_that_refers_to_its_segment() -> None:
    found = {group.tracking_identifier: group for group in groups()}
    assert list(found) == ["L5-S1 disc", "L4-L5 disc"]
    reference = found["L4-L5 disc"].referenced_segment[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSegmentNumber == 4
    assert reference.ReferencedSOPInstanceUID == run_context().uid("seg")
    assert found["L4-L5 disc"].finding_sites[0].value.value == "84020006"


def test_measurements_carry_value_unit_and_uncertainty() -> None:
    group = next(group for group in groups() if group.tracking_identifier == "L4-L5 disc")
    by_name = {item.name.value: item for item in group.get_measurements()}
    assert by_name["canal-ap"].value == 11.2
    assert by_name["canal-ap"].unit.value == "mm"
    assert by_name["F13"].value == 0.27


def test_grades_and_what_could_not_be_computed() -> None:
    group = next(group for group in groups() if group.tracking_identifier == "L4-L5 disc")
    values = {item.name.value: item.value for item in group.get_qualitative_evaluations()}
    assert values["F01"].value == "F01-herniation-unspecified"
    assert values["F08"].value == "absent-not-performed"
    assert values["F08"].meaning.startswith("Not computed")
    graded = next(item for item in group[0].ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "F06")
    certainty = graded.ContentSequence[0]
    assert certainty.ConceptNameCodeSequence[0].CodeValue == "111012"
    assert float(certainty.MeasuredValueSequence[0].NumericValue) == 66.0


def test_it_is_unverified_and_says_who_observed() -> None:
    dataset = build()
    assert dataset.VerificationFlag == "UNVERIFIED"
    assert dataset.PreliminaryFlag == "PRELIMINARY"
    report = highdicom.sr.srread(BytesIO(written(dataset)))
    observer = report.content.get_observer_contexts()[0].observer_identifying_attributes
    assert observer.manufacturer_name == "Foramen"
    assert "0.1.0" in str(observer.model_name)


def test_evidence_names_the_images_and_the_segmentation() -> None:
    series = build().CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    instances = [item.ReferencedSOPInstanceUID for entry in series for item in entry.ReferencedSOPSequence]
    assert set(prediction().sop_instance_uids) < set(instances)
    assert run_context().uid("seg") in instances


def test_a_replay_is_byte_for_byte_the_same() -> None:
    assert written(build()) == written(build())


def test_a_level_without_segment_and_the_study_itself_have_groups_too() -> None:
    items = tuple(item for item in findings() if item.level == "L4-L5")
    made = prediction(items=tuple(type(item)(**{**fields(item), "segment_number": None}) for item in items))
    sources, context = source_datasets(), run_context()
    dataset = build_structured_report(made, sources, build_segmentation(made, sources, context), context)
    report = highdicom.sr.srread(BytesIO(written(dataset)))
    assert len(report.content.get_image_measurement_groups()) == 1


def fields(item: object) -> dict[str, object]:
    return {name: getattr(item, name) for name in type(item).__slots__}  # type: ignore[attr-defined]


def test_dcmtk_reads_it_as_a_report(tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    path.write_bytes(written(build()))
    done = subprocess.run(["dsr2xml", str(path)], capture_output=True, text=True, check=True)
    assert 'type="Comprehensive 3D SR"' in done.stdout
    assert "Disc height index" in done.stdout
    dumped = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True, check=True)
    assert 'upper measurement uncertainty")="1.0" (mm,UCUM' in dumped.stdout
