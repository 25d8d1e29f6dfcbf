"""The lumbar pipeline reads sagittal T2-like lumbar series and declines everything else with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from ai_services.imaging.series_selection import reason_to_decline, select_series
from ai_services.prediction import PipelineError
from tests.builders.mr_series import mr_series

SAGITTAL = np.array([[-4.0, 0, 0, 0], [0, 0, 0.7, -100], [0, -0.7, 0, 150], [0, 0, 0, 1]])
AXIAL = np.array([[0, 0, 0.7, 0], [0, 0.7, 0, -100], [4.0, 0, 0, 150], [0, 0, 0, 1]])[:, [0, 1, 2, 3]]

CORONAL = np.array([[0, 0, 0.7, -100], [4.0, 0, 0, 0], [0, -0.7, 0, 150], [0, 0, 0, 1]])


def _series(affine=SAGITTAL, slices=3, size=256, **attributes: object) -> list[Dataset]:
    return mr_series(np.zeros((slices, size, size), int), affine, **attributes)


def _reason(**attributes: object) -> str | None:
    return reason_to_decline(_series(**attributes)[0])


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"BodyPartExamined": "LSSPINE", "SeriesDescription": "t2_tse_sag"},
        {"BodyPartExamined": "SPINE", "StudyDescription": "MRI LUMBAR SPINE", "SeriesDescription": "T2 SAG"},
        {"BodyPartExamined": "", "StudyDescription": "L-Spine", "SeriesDescription": "t2_spc_sag SPACE"},
        {"BodyPartExamined": "", "StudyDescription": "腰椎平扫", "SeriesDescription": "T2 sag"},
        {"BodyPartExamined": "LWS", "SeriesDescription": "SPACE sag"},
        {
            "SeriesDescription": "sag",
            "ScanningSequence": "SE",
            "EchoTime": 110,
            "RepetitionTime": 3500,
        },
    ],
)
def test_lumbar_sagittal_t2_is_read(attributes):
    assert _reason(**attributes) is None


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BodyPartExamined": "BRAIN"}, "not-lumbar-mr"),
        ({"BodyPartExamined": "BRAIN", "StudyDescription": "lumbar"}, "not-lumbar-mr"),
        ({"BodyPartExamined": "CSPINE"}, "not-lumbar-mr"),
        ({"BodyPartExamined": "SPINE"}, "not-lumbar-mr"),
        ({"BodyPartExamined": ""}, "not-lumbar-mr"),
        ({"SeriesDescription": "t1_tse_sag"}, "not-t2"),
        ({"SeriesDescription": "sag"}, "not-t2"),
        ({"SeriesDescription": "localizer T2"}, "localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"size": 64}, "field-of-view-too-small"),
        ({"affine": AXIAL}, "not-sagittal"),
        ({"affine": CORONAL}, "not-sagittal"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR", "CSA MPR"]}, "derived-series"),
        ({"ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MIP"]}, "derived-series"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER"], "SourceImageSequence": [Dataset()]}, "derived-series"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "SCREEN SAVE"]}, "derived-series"),
        (
            {"SeriesDescription": "sag", "ScanningSequence": ["EP", "SE"], "EchoTime": 90, "RepetitionTime": 4000},
            "not-t2",
        ),
        ({"NumberOfFrames": 12}, "enhanced-multi-frame"),
        ({"Modality": "SEG"}, "not-mr-image"),
        ({"Modality": "CT"}, "not-mr-image"),
    ],
)
def test_the_rest_is_declined_with_its_reason(attributes, reason):
    assert _reason(**attributes) == reason


def test_the_plain_t2_is_preferred_to_fat_suppression_and_to_coarse_pixels():
    coarse = np.diag([1.0, 1, 1, 1]) @ SAGITTAL
    coarse[1, 2], coarse[2, 1] = 1.2, -1.2
    series = [
        _series(SeriesDescription="T2 STIR sag"),
        _series(affine=coarse, SeriesDescription="T2 sag"),
        _series(SeriesDescription="T2 sag fine"),
        _series(SeriesDescription="T1 sag"),
    ]
    selection = select_series(series)
    assert selection.require() == series[2][0].SeriesInstanceUID
    assert {item.reason_code for item in selection.declined} == {"other-series-preferred", "not-t2"}
    assert selection == select_series([series[index] for index in (0, 1, 2, 3)])


def test_the_choice_does_not_depend_on_the_order_of_the_series():
    series = [_series(), _series(), _series()]
    assert select_series(series).require() == select_series(series[::-1]).require()


def test_nothing_to_read_says_why():
    with pytest.raises(PipelineError) as caught:
        select_series([_series(BodyPartExamined="BRAIN"), _series(Modality="SR")]).require()
    assert caught.value.reason_code == "not-lumbar-mr"
    with pytest.raises(PipelineError) as caught:
        select_series([_series(BodyPartExamined="BRAIN"), _series(SeriesDescription="T1 sag")]).require()
    assert caught.value.reason_code == "not-t2"
    with pytest.raises(PipelineError) as caught:
        select_series([]).require()
    assert caught.value.reason_code == "no-mr-images"


def test_dicomweb_metadata_without_pixels_is_enough():
    headers = [Dataset.from_json(dataset.to_json_dict()) for dataset in _series()]
    for header in headers:
        del header.PixelData
    assert select_series([headers]).require() == headers[0].SeriesInstanceUID


@pytest.mark.test_data
@pytest.mark.parametrize(
    "folder", ["ge_mprage", "philips_classic", "enhanced_mr", "siemens_enhanced_sagittal", "siemens_transfer_syntaxes"]
)
def test_real_head_and_phantom_series_of_three_vendors_are_declined_as_not_lumbar(test_data: Path, folder):
    by_series: dict[str, list[Dataset]] = {}
    for path in sorted((test_data / "dicom" / folder).rglob("*")):
        if path.is_file() and path.name != "LICENSE":
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            by_series.setdefault(dataset.SeriesInstanceUID, []).append(dataset)
    assert by_series
    with pytest.raises(PipelineError) as caught:
        select_series(list(by_series.values())).require()
    assert caught.value.reason_code == "not-lumbar-mr"
