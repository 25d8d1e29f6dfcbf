"""The SEG object as others read it: highdicom and dcmtk open it, codes and geometry hold, a replay is identical."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from ai_services.prediction import Segment
from ai_services.results.dicom_seg import build_segmentation
from tests.builders.prediction import SLICES, prediction, run_context, source_datasets


def written(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def build(**changes: str) -> Dataset:
    return build_segmentation(prediction(), source_datasets(), run_context(**changes))


def test_read_back_gives_the_mask_voxel_by_voxel() -> None:
    read = highdicom.seg.segread(BytesIO(written(build())))
    made = prediction()
    got = read.get_pixels_by_source_instance(
        list(made.sop_instance_uids), combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(got, made.mask)


def test_order_of_the_delivered_instances_does_not_matter() -> None:
    reverse = build_segmentation(prediction(), source_datasets()[::-1], run_context())
    assert written(reverse) == written(build())


def test_a_replay_is_byte_for_byte_the_same() -> None:
    assert written(build()) == written(build())


def test_other_input_gives_other_uids() -> None:
    other = build(input_hash="ffff")
    assert other.SOPInstanceUID != build().SOPInstanceUID
    assert other.SeriesInstanceUID != build().SeriesInstanceUID
    assert other.StudyInstanceUID == build().StudyInstanceUID


def test_segments_are_coded_and_name_their_algorithm() -> None:
    segments = build().SegmentSequence
    codes = [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in segments]
    assert codes == ["51282000", "61853006", "715056000", "84020006"]
    for item in segments:
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "0.1.0"
        assert item.TrackingUID.startswith("2.25.")


def test_vertebrae_that_a_pipeline_tells_apart_have_a_code_and_a_tracking_uid_each() -> None:
    """The pipeline of today has one segment for all vertebrae; what tells them apart needs no change here."""
    made = prediction()
    mask = made.mask.copy()
    mask[1:4, 14:22, 10:22] = 5
    segments = (Segment(1, "vertebra", "L4 vertebra", "L4"), *made.segments[1:], Segment(5, "vertebra", "T12", "T12"))
    dataset = build_segmentation(replace(made, mask=mask, segments=segments), source_datasets(), run_context())
    first, last = dataset.SegmentSequence[0], dataset.SegmentSequence[4]
    codes = [item.SegmentedPropertyTypeCodeSequence[0].CodeValue for item in (first, last)]
    assert codes == ["11994002", "23215003"]
    assert [item.AnatomicRegionSequence[0].CodeValue for item in (first, last)] == ["122496007", "1217256009"]
    assert len({item.TrackingUID for item in dataset.SegmentSequence}) == 5


def test_frames_without_content_are_left_out() -> None:
    dataset = build()
    frames = sum(int((prediction().mask == number).any(axis=(1, 2)).sum()) for number in (1, 2, 3, 4))
    assert int(dataset.NumberOfFrames) == frames < 4 * SLICES


def test_identity_of_the_study_and_of_the_maker() -> None:
    dataset = build()
    assert dataset.Manufacturer == "Foramen"
    assert dataset.Modality == "SEG"
    assert (dataset.PatientID, dataset.IssuerOfPatientID) == ("SYN-0001", "DEMO")
    assert str(dataset.PatientName) == "合成^测试"
    assert dataset.FrameOfReferenceUID == source_datasets()[0].FrameOfReferenceUID
    assert dataset.ContentDate == "20261122"
    assert dataset.SegmentationType == "BINARY"


def test_a_source_without_type_2_attributes_still_works() -> None:
    sources = source_datasets()
    for source in sources:
        for keyword in (
            "StudyID",
            "AccessionNumber",
            "ReferringPhysicianName",
            "PatientBirthDate",
            "FrameOfReferenceUID",
        ):
            delattr(source, keyword)
    dataset = build_segmentation(prediction(), sources, run_context())
    assert dataset.AccessionNumber == ""
    assert dataset.FrameOfReferenceUID


def test_missing_source_instances_and_broken_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="source instances"):
        build_segmentation(prediction(), source_datasets()[1:], run_context())
    made = prediction()
    gap = type(made)(
        study_instance_uid=made.study_instance_uid,
        series_instance_uid=made.series_instance_uid,
        sop_instance_uids=made.sop_instance_uids,
        mask=np.where(made.mask == 4, 5, made.mask).astype(np.uint8),
        affine_lps=made.affine_lps,
        segments=(*made.segments[:3], Segment(5, "disc", "L4-L5 disc", "L4-L5")),
        findings=made.findings,
        numbering=made.numbering,
        models=made.models,
    )
    with pytest.raises(ValueError, match="without gaps"):
        build_segmentation(gap, source_datasets(), run_context())


def test_dcmtk_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(written(build()))
    done = subprocess.run(["dcmdump", str(path)], capture_output=True, text=True, check=True)
    assert "SegmentationStorage" in done.stdout
    assert pydicom.dcmread(path).SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
