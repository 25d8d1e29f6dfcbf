"""One odd header must not keep a whole study from being registered."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicomweb.instance_header import header_of


def odd() -> Dataset:
    dataset = Dataset()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "1.2", "1.2.3", "1.2.3.4"
    dataset.SOPClassUID = MRImageStorage
    dataset.Modality = "MR"
    dataset.StudyDescription = "SYNTHETIC\0\0"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


@pytest.mark.requirement("PS3.5 6.1.2.5: escape sequences of ISO 2022 IR 58, Annex K.2")
@pytest.mark.parametrize(
    "module", ["dicomweb.instance_header", "dicomweb.retrieve.decoding", "dicomweb.deidentification.quiet_reading",
               "ai_services.results.dicom_source"],
)  # fmt: skip
def test_chinese_by_escape_sequence_is_read_in_every_process(module: str) -> None:
    """In a process of its own, where nothing else has mended the library."""
    code = f"""
import importlib
importlib.import_module({module!r})
from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes, encode_string
encodings = convert_encodings(["", "ISO 2022 IR 58"])
name = bytes.fromhex("5a68616e675e5869616f446f6e673d1b242941d5c55e1b242941d0a1b6ab3d")
text = decode_bytes(name, encodings, {{0x5e, 0x3d}})
assert text == "Zhang^XiaoDong=张^小东=", ascii(text)
assert b"\\x1b$)A" in encode_string("张^小东", encodings)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_nul_padding_does_not_reach_the_index() -> None:
    header = header_of(odd(), has_pixel_data=False)
    assert "\0" not in str(header.study)
    assert header.study["00081030"]["Value"] == ["SYNTHETIC"]


def test_numbers_beyond_what_dicom_allows_are_left_out() -> None:
    dataset = odd()
    dataset.InstanceNumber = 99_999_999_999
    dataset.NumberOfFrames = 99_999_999_999
    header = header_of(dataset, has_pixel_data=True)
    assert header.instance_number is None
    assert header.frames == 1
