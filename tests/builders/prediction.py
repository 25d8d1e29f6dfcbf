"""A small hand-made prediction on a small SYNTHETIC sagittal MR series: for tests of what follows the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from ai_services.prediction import Finding, ModelIdentity, Numbering, Prediction, Segment
from ai_services.results.context import RunContext

STUDY_UID = "1.2.826.0.1.3680043.8.498.1001"
SERIES_UID = f"{STUDY_UID}.1"
SLICES, ROWS, COLUMNS = 5, 48, 40
RECORDED_AT = datetime(2026, 11, 22, 8, 0, 1, 250000, tzinfo=UTC)
MODEL = ModelIdentity("lumbar-segmentation", "0.1.0", "ab" * 32)


def source_datasets(
    slices: int = SLICES, *, study_instance_uid: str = STUDY_UID, patient_id: str = "SYN-0001"
) -> list[Dataset]:
    """Sagittal slices 4 mm apart, from the patient's right to the left (LPS +x)."""
    datasets = []
    series_uid = f"{study_instance_uid}.1"
    for index in range(slices):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = f"{series_uid}.{index + 1}"
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.SOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = f"{series_uid}.{index + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_instance_uid, series_uid
        dataset.FrameOfReferenceUID = f"{study_instance_uid}.9"
        dataset.PatientName, dataset.PatientID = "合成^测试", patient_id
        dataset.IssuerOfPatientID = "DEMO"
        dataset.PatientBirthDate, dataset.PatientSex = "19700101", "M"
        dataset.StudyDate, dataset.StudyTime = "20261122", "080000"
        dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "A1", ""
        dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "MR", 1, index + 1
        dataset.SeriesDescription, dataset.StudyDescription = "T2 sag lumbar SYNTHETIC", "L-spine SYNTHETIC"
        dataset.Manufacturer, dataset.BodyPartExamined = "SYNTHETIC", "LSPINE"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        dataset.ScanningSequence, dataset.EchoTime, dataset.RepetitionTime = "SE", 100, 3000
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        dataset.ImagePositionPatient = [-8.0 + 4.0 * index, -60.0, 90.0]
        dataset.PixelSpacing, dataset.SliceThickness, dataset.SpacingBetweenSlices = [4.0, 4.0], 4.0, 4.0
        dataset.Rows, dataset.Columns = ROWS, COLUMNS
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        pixels = np.random.default_rng(index).integers(0, 2000, (ROWS, COLUMNS), dtype=np.uint16)
        dataset.PixelData = pixels.tobytes()
        datasets.append(dataset)
    return datasets


def findings(morphology: str = "herniation-unspecified") -> tuple[Finding, ...]:
    """Findings of two levels, and one that could not be computed."""
    axial = {"absent_text_zh": "缺少轴位 T2", "absent_text_en": "no axial T2 series"}
    return (
        Finding("F01", "L5-S1", "bulge", confidence=0.7, segment_number=3),
        Finding("F06", "L5-S1", "3", confidence=0.6, segment_number=3),
        Finding("F13", "L5-S1", 0.31, unit="{ratio}", uncertainty=0.04, method="derived", segment_number=3),
        Finding("F01", "L4-L5", morphology, confidence=0.81, segment_number=4),
        Finding("F06", "L4-L5", "4", confidence=0.66, segment_number=4),
        Finding("F13", "L4-L5", 0.27, unit="{ratio}", uncertainty=0.04, method="derived", segment_number=4),
        Finding("canal-ap", "L4-L5", 11.2, unit="mm", uncertainty=1.0, method="derived", segment_number=4),
        Finding("F08", "L4-L5", absent_reason="not-performed", **axial),
        Finding("F02", "L4-L5", absent_reason="not-performed", **axial),
    )


def prediction(
    *,
    study_instance_uid: str = STUDY_UID,
    items: tuple[Finding, ...] | None = None,
    numbering: Numbering | None = None,
) -> Prediction:
    """One vertebra, canal and two disc segments; the outermost slices are empty and the mask is not symmetric."""
    mask = np.zeros((SLICES, ROWS, COLUMNS), dtype=np.uint8)
    mask[1:4, 4:12, 10:22] = 1
    mask[1:4, 2:44, 26:30] = 2
    mask[1:4, 38:42, 12:24] = 3
    mask[2:4, 24:28, 11:25] = 4
    affine = np.array([[4.0, 0, 0, -8], [0, 0, 4.0, -60], [0, -4.0, 0, 90], [0, 0, 0, 1]], dtype=np.float64)
    return Prediction(
        study_instance_uid=study_instance_uid,
        series_instance_uid=SERIES_UID,
        sop_instance_uids=tuple(f"{SERIES_UID}.{index + 1}" for index in range(SLICES)),
        mask=mask,
        affine_lps=affine,
        segments=(
            Segment(1, "vertebra", "Vertebrae", None),
            Segment(2, "canal", "Spinal canal", None),
            Segment(3, "disc", "L5-S1 disc", "L5-S1"),
            Segment(4, "disc", "L4-L5 disc", "L4-L5"),
        ),
        findings=findings() if items is None else items,
        numbering=numbering or Numbering("sacrum-only", confident=True),
        models=(MODEL,),
        seconds={"infer": 0.1},
    )


def run_context(**changes: object) -> RunContext:
    """A run on the SYNTHETIC study."""
    values: dict[str, object] = {
        "study_instance_uid": STUDY_UID,
        "input_hash": "0123456789abcdef",
        "pipeline": "lumbar_mr",
        "pipeline_version": "lumbar-segmentation 0.1.0",
        "imaging_study": "ImagingStudy/is1",
        "patient": "Patient/p1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "recorded_at": RECORDED_AT,
        "synthetic": True,
    }
    return RunContext(**{**values, **changes})  # type: ignore[arg-type]


def hand_made(series: Sequence[Dataset]) -> Prediction:
    """A pipeline that says the same about every series of this builder; it reads the pixels, as a real one must."""
    ordered = sorted(series, key=lambda dataset: float(dataset.ImagePositionPatient[0]))
    if any(dataset.pixel_array.shape != (ROWS, COLUMNS) for dataset in ordered):
        raise ValueError("not a series of this builder")
    made = prediction(study_instance_uid=str(ordered[0].StudyInstanceUID))
    mask = np.zeros((len(ordered), ROWS, COLUMNS), dtype=np.uint8)
    mask[:SLICES] = made.mask
    return replace(
        made,
        series_instance_uid=str(ordered[0].SeriesInstanceUID),
        sop_instance_uids=tuple(str(dataset.SOPInstanceUID) for dataset in ordered),
        mask=mask,
    )
