"""Writes seg_binary.dcm and seg_expected.json: a SYNTHETIC segmentation by highdicom, to be read back by the app.

From the project folder: `python tests/unit/smart_apps/result_review/make_seg.py`; test_seg_fixture.py checks it.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

FOLDER = Path(__file__).parent
ROOT = "1.2.826.0.1.3680043.10.1.99"
LABELS = ("L5-S1 disc", "L4-L5 disc", "spinal canal")
ROWS, COLUMNS, SLICES = 7, 9, 4  # 63 pixels: no frame after the first starts on a whole byte


def source(index: int) -> Dataset:
    """One sagittal MR slice with geometry only."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.3.{index + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{ROOT}.1", f"{ROOT}.2", f"{ROOT}.4"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "SYN-0001", "SYNTHETIC^SYNTHETIC", "", "O"
    ds.StudyID = ds.AccessionNumber = ds.StudyDate = ds.StudyTime = ""
    ds.Modality, ds.InstanceNumber, ds.SeriesNumber = "MR", index + 1, 1
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = ROWS, COLUMNS, 16, 16, 15
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    ds.ImagePositionPatient = [-6.0 + 4.0 * index, 10.0, 20.0]
    ds.PixelSpacing, ds.SliceThickness = [0.5, 0.5], 4.0
    return ds


def mask() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Shape (slice, row, column); no symmetry in any axis, the last slice empty."""
    array = np.zeros((SLICES, ROWS, COLUMNS), np.uint8)
    array[0, 1, 2:5] = 1
    array[1, 1:3, 2:8] = 1
    array[1, 4, 0] = 2
    array[2, 4:7, 0:4] = 2
    array[0:3, 0, 8] = 3
    return array


def build() -> Segmentation:
    """Build the segmentation object."""
    algorithm = AlgorithmIdentificationSequence("test", codes.cid7162.ArtificialIntelligence, "1")
    descriptions = [
        SegmentDescription(
            number,
            label,
            codes.SCT.AnatomicalStructure,
            codes.SCT.VertebralCanal,
            "AUTOMATIC",
            algorithm,
        )
        for number, label in enumerate(LABELS, start=1)
    ]
    return Segmentation(
        [source(index) for index in range(SLICES)],
        mask(),
        SegmentationTypeValues.BINARY,
        descriptions,
        series_instance_uid=f"{ROOT}.5",
        series_number=9001,
        sop_instance_uid=f"{ROOT}.6",
        instance_number=1,
        manufacturer="SYNTHETIC",
        manufacturer_model_name="SYNTHETIC",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    )


def expected() -> dict[str, Any]:
    """What the app must read."""
    slices = [{"sop": f"{ROOT}.3.{index + 1}", "pixels": plane.ravel().tolist()} for index, plane in enumerate(mask())]
    return {"rows": ROWS, "columns": COLUMNS, "labels": list(LABELS), "slices": slices}


if __name__ == "__main__":
    buffer = BytesIO()
    build().save_as(buffer, enforce_file_format=True)
    (FOLDER / "seg_binary.dcm").write_bytes(buffer.getvalue())
    (FOLDER / "seg_expected.json").write_text(json.dumps(expected()) + "\n")
