"""One odd header must not keep a whole study from being registered."""

from __future__ import annotations

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
