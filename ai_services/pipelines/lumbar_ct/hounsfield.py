"""CT instances → a volume in Hounsfield units that are what they claim to be (stage 4).

DICOM PS3.3 C.8.2.1 (CT Image: Rescale Intercept and Slope are type 1, Rescale Type HU), C.7.5.1.1.2 (Pixel Padding
Value), C.8.2.1.1.7 (Gantry/Detector Tilt). Positions decide over tilt: slices of a tilted gantry are sheared, and the
affine says so; a header that says tilt where positions show none is refused, as one of the two is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from ai_services.imaging.geometry import SeriesVolume, place_in_patient, volume_from_datasets
from ai_services.imaging.header_values import number_of
from ai_services.imaging.refusal import refusal
from ai_services.imaging.volume import InvalidGeometryError, Volume
from ai_services.pipelines.lumbar_ct.parameters import Parameters
from ai_services.prediction import PipelineError

PADDING_HU = -1024.0
DENSEST_HU = 20000.0
TILT_TOLERANCE_DEG = 1.5
STEEPEST_TILT_DEG = 30.0
THICKEST_SLICE_MM = 3.0
"""POLICY: a facet joint is about 3 mm wide; with thicker slices the arches of neighbours run into one."""


def read_hounsfield(datasets: Sequence[Dataset], parameters: Parameters) -> SeriesVolume:
    """Read one series.

    Parameters
    ----------
    datasets : single-frame CT instances with pixel data, any order

    Raises
    ------
    PipelineError
        ``not-hounsfield``, ``gantry-tilt-contradicted``, ``slices-too-thick``, ``metal-implant``, or a reason of
        `volume_from_datasets`.
    """
    for dataset in datasets:
        _require_rescale(dataset)
    try:
        order, affine = place_in_patient(datasets)
        _require_tilt(datasets[order[0]], affine)
        source = volume_from_datasets(datasets)
    except InvalidGeometryError as exc:
        raise PipelineError(exc.reason_code, exc.text_en, exc.text_zh) from exc
    step_mm = slice_distance_mm(affine)
    if step_mm > THICKEST_SLICE_MM:
        raise refusal("slices-too-thick", f"{step_mm:.1f} mm", f"{step_mm:.1f} mm")
    array = source.volume.array
    for number, index in enumerate(order):
        padding = _padding_hu(datasets[index])
        if padding is not None:
            array[number][array[number] == np.float32(padding)] = PADDING_HU
    np.clip(array, PADDING_HU, DENSEST_HU, out=array)
    require_body(array, parameters)
    require_no_metal(array, float(np.prod(source.volume.spacing_mm)), parameters)
    return SeriesVolume(Volume(array, source.volume.affine_lps), source.sop_instance_uids)


def slice_distance_mm(affine: NDArray[np.float64]) -> float:
    """Distance of neighbouring slices at right angles to them, also where the stack is sheared."""
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    return abs(float(affine[:3, 0] @ (normal / np.linalg.norm(normal))))


def shear_deg(affine: NDArray[np.float64]) -> float:
    """Angle between the slices' normal and the way from one to the next: the gantry's tilt as positions show it."""
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    normal /= np.linalg.norm(normal)
    step = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    return float(np.degrees(np.arccos(np.clip(abs(normal @ step), 0, 1))))


def require_body(array: NDArray[np.float32], parameters: Parameters) -> None:
    """Refuse numbers that are no Hounsfield units: most of a body lies between fat and muscle.

    Parameters
    ----------
    array : shape (slice, row, column)
    """
    seen = array[::3, ::4, ::4]
    body = seen[seen > parameters.air_below_hu]
    soft = (body > parameters.soft_low_hu) & (body < parameters.soft_high_hu)
    if body.size < 0.02 * seen.size or float(soft.mean()) < parameters.least_soft_share:
        raise refusal("not-hounsfield", "densities are not those of a body", "密度分布不符合人体")


def require_no_metal(array: NDArray[np.float32], voxel_mm3: float, parameters: Parameters) -> None:
    """Refuse screws, cages and plates: streaks beside them are neither bone nor its absence."""
    metal = array > parameters.metal_hu
    if float(metal.sum()) * voxel_mm3 < parameters.metal_mm3:
        return
    groups, count = ndimage.label(metal)
    largest_mm3 = float(np.bincount(groups.ravel())[1:].max(initial=0)) * voxel_mm3 if count else 0.0
    if largest_mm3 >= parameters.metal_mm3:
        raise refusal("metal-implant", f"{largest_mm3:.0f} mm³", f"{largest_mm3:.0f} mm³")


def _require_rescale(dataset: Dataset) -> None:
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope in (None, "") or intercept in (None, "") or number_of(dataset, "RescaleSlope") <= 0:
        raise refusal("not-hounsfield", "no rescale slope and intercept", "缺少斜率与截距")
    if str(dataset.get("RescaleType", "") or "HU").strip().upper() not in ("HU", "HU_MOD"):
        raise refusal("not-hounsfield", "the rescale type is another", "像素单位不是 HU")


def _require_tilt(first: Dataset, affine: NDArray[np.float64]) -> None:
    said, shown = abs(number_of(first, "GantryDetectorTilt")), shear_deg(affine)
    if shown > STEEPEST_TILT_DEG or abs(said - shown) > TILT_TOLERANCE_DEG:
        text = f"{said:.0f}° said, {shown:.0f}° in the positions"
        raise refusal("gantry-tilt-contradicted", text, f"标注 {said:.0f}°, 位置显示 {shown:.0f}°")


def _padding_hu(dataset: Dataset) -> float | None:
    if dataset.get("PixelPaddingValue") in (None, ""):
        return None
    stored = number_of(dataset, "PixelPaddingValue")
    return stored * number_of(dataset, "RescaleSlope") + number_of(dataset, "RescaleIntercept")
