"""DICOM JSON of damaged datasets, many at once (PS3.18 Annex F)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydicom import Dataset, config
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicomweb.dicom_json import dicom_json


def damaged() -> Dataset:
    dataset = Dataset()
    dataset.PatientID = "SYN-1"
    dataset.Modality = "MR"
    tag = Tag(0x00280030)
    dataset._dict[tag] = RawDataElement(tag, "DS", 8, b"one\\two ", 0, False, True)
    return dataset


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_broken_element_does_not_hide_the_others() -> None:
    model = dicom_json(damaged())
    assert model["00100020"] == {"vr": "LO", "Value": ["SYN-1"]}
    assert "00280030" not in model


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_how_strictly_dicom_is_read_is_the_same_before_during_and_after() -> None:
    before = config.settings.reading_validation_mode
    seen = set()

    def work(_: int) -> None:
        dicom_json(damaged())
        seen.add(config.settings.reading_validation_mode)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(400)))
    assert seen == {before}
    assert config.settings.reading_validation_mode == before
