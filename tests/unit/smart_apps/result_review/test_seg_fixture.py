"""The fixture that the app's decoder is tested with says the same to pydicom (DICOM PS3.3 C.8.20)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom

FOLDER = Path(__file__).parent


def test_the_fixture_holds_the_masks_that_the_app_must_read() -> None:
    ds = pydicom.dcmread(FOLDER / "seg_binary.dcm")
    expected = json.loads((FOLDER / "seg_expected.json").read_text())
    assert (ds.SegmentationType, ds.BitsAllocated, ds.PatientID) == ("BINARY", 1, "SYN-0001")
    planes = {item["sop"]: np.zeros((ds.Rows, ds.Columns), int) for item in expected["slices"]}
    for frame, header in zip(ds.pixel_array, ds.PerFrameFunctionalGroupsSequence, strict=True):
        sop = header.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        number = header.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        planes[sop][frame > 0] = number
    assert {sop: plane.ravel().tolist() for sop, plane in planes.items()} == {
        item["sop"]: item["pixels"] for item in expected["slices"]
    }
