"""What the CT pipeline refuses, by header and by pixels; each reason on SYNTHETIC images that differ in one thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai_services.imaging.ct_phantom import CtPhantom, CtSetting, ct_phantom
from ai_services.imaging.ct_series_selection import reason_to_decline_ct, select_ct_series
from ai_services.models.registry import load_manifest
from ai_services.models.runtime import ModelIntegrityError
from ai_services.pipelines.lumbar_ct.hounsfield import read_hounsfield, shear_deg, slice_distance_mm
from ai_services.pipelines.lumbar_ct.parameters import load_parameters, read_parameters
from ai_services.pipelines.lumbar_ct.pipeline import run
from ai_services.prediction import PipelineError
from tests.builders.ct_series import ct_series
from tests.builders.mr_series import mr_series


@pytest.fixture(scope="module")
def small() -> CtPhantom:
    """Without the sacrum, and coarse: enough to be read, not to be counted."""
    return ct_phantom(0, CtSetting(spacing_mm=(2.5, 1.6, 1.6), z_range_mm=(-70.0, 100.0), gantry_tilt_deg=8.0))


def attribute(keyword: str, value: object) -> Callable[[list[Dataset]], None]:
    def change(series: list[Dataset]) -> None:
        for dataset in series:
            setattr(dataset, keyword, value)

    return change


def without(keyword: str) -> Callable[[list[Dataset]], None]:
    def change(series: list[Dataset]) -> None:
        for dataset in series:
            delattr(dataset, keyword)

    return change


def pixels(change: Callable[[np.ndarray], None]) -> Callable[[list[Dataset]], None]:
    def apply(series: list[Dataset]) -> None:
        for number, dataset in enumerate(series):
            stored = dataset.pixel_array.copy()
            if number % 2 or len(series) < 4:
                change(stored)
            dataset.PixelData = stored.tobytes()

    return apply


def screw(stored: np.ndarray) -> None:
    stored[40:46, 40:46] = 4095


def every_second(series: list[Dataset]) -> None:
    series[:] = series[::2]
    for dataset in series:
        dataset.SliceThickness = 5.0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (without("RescaleSlope"), "not-hounsfield"),
        (attribute("RescaleType", "US"), "not-hounsfield"),
        (attribute("RescaleIntercept", 3000), "not-hounsfield"),
        (attribute("GantryDetectorTilt", 0), "gantry-tilt-contradicted"),
        (pixels(screw), "metal-implant"),
        (every_second, "slices-too-thick"),
    ],
)
def test_what_is_no_plain_ct_is_refused_by_its_reason(
    small: CtPhantom, change: Callable[[list[Dataset]], None], code: str
) -> None:
    series = ct_series(small)
    change(series)
    with pytest.raises(PipelineError) as refused:
        run(series)
    assert refused.value.reason_code == code


def test_without_a_sacrum_nothing_is_counted(small: CtPhantom) -> None:
    with pytest.raises(PipelineError) as refused:
        run(ct_series(small))
    assert refused.value.reason_code == "sacrum-not-seen"


def test_padding_is_air_and_tilt_is_read_from_positions(small: CtPhantom) -> None:
    series = ct_series(small, PixelPaddingValue=3000)
    for dataset in series:
        stored = dataset.pixel_array.copy()
        stored[:4] = 3000
        dataset.PixelData = stored.tobytes()
    read = read_hounsfield(series, load_parameters())
    assert (read.volume.array[:, :4] == -1024).all()
    assert shear_deg(read.volume.affine_lps) == pytest.approx(8, abs=0.01)
    assert slice_distance_mm(read.volume.affine_lps) == pytest.approx(2.5 * np.cos(np.radians(8)), abs=1e-3)


def test_the_thinnest_lumbar_series_is_chosen_and_others_say_why(small: CtPhantom) -> None:
    thin, thick = ct_series(small, SliceThickness=1.0), ct_series(small, SliceThickness=3.0)
    mpr = ct_series(small, ImageType=["DERIVED", "SECONDARY", "MPR"])
    head = ct_series(small, BodyPartExamined="HEAD")
    mr = mr_series(np.zeros((4, 200, 200), np.uint16), np.eye(4))
    chosen = select_ct_series([thick, thin, mpr, head, mr])
    assert chosen.require() == thin[0].SeriesInstanceUID
    told = {item.series_instance_uid: item.reason_code for item in chosen.declined}
    assert told == {
        thick[0].SeriesInstanceUID: "other-series-preferred",
        mpr[0].SeriesInstanceUID: "derived-series",
        head[0].SeriesInstanceUID: "not-lumbar-ct",
        mr[0].SeriesInstanceUID: "not-ct-image",
    }
    assert reason_to_decline_ct(ct_series(small, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])[0]) == "localizer"


def test_other_constants_than_the_released_ones_are_refused(tmp_path: Path) -> None:
    file = load_manifest("lumbar_ct").models["geometry"]
    other = tmp_path / "parameters.yaml"
    other.write_text(file.path.read_text(encoding="utf-8").replace("bone_hu: 240", "bone_hu: 120"), encoding="utf-8")
    with pytest.raises(ModelIntegrityError, match="not the released one"):
        read_parameters(other, file.identity.sha256)
    other.write_text("bone_hu: 240\n", encoding="utf-8")
    with pytest.raises(ModelIntegrityError, match="does not hold"):
        read_parameters(other)
