"""Stored values to what is shown, 0–1: modality LUT, VOI LUT or window, presentation. Pure; runs in the codec process.

DICOM PS3.3 C.11.1 (modality LUT), C.11.2 (VOI LUT, windows), C.7.6.16.2.9 and .10 (per frame).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

_KEYWORDS = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
)


def shown_values(
    frame: NDArray[Any], dataset: Dataset, number: int, window: tuple[float, float, str] | None
) -> NDArray[np.float64]:
    """Grey values of one frame, 0 (black) to 1 (white).

    Parameters
    ----------
    frame : shape (row, column), stored values
    number : of the frame, from 1
    window : centre, width and VOI LUT Function asked for; None: the stored window or LUT, else the whole range
    """
    attributes = frame_attributes(dataset, number)
    values = np.asarray(apply_modality_lut(frame, attributes), np.float64)
    if window is not None:
        shown = windowed(values, *window)
    elif "WindowCenter" in attributes and "WindowWidth" in attributes:
        centre, width = _number(attributes.WindowCenter), _number(attributes.WindowWidth)
        shown = windowed(values, centre, width, str(attributes.get("VOILUTFunction") or "LINEAR"))
    elif "VOILUTSequence" in attributes and len(attributes.VOILUTSequence):
        shown = _by_lut(np.asarray(apply_voi_lut(values.astype(np.int64), attributes, prefer_lut=True)), attributes)
    else:
        shown = _stretched(values)
    return 1.0 - shown if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else shown


def windowed(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    """Apply LINEAR (C.11.2.1.2.1), LINEAR_EXACT (C.11.2.1.3.2) or SIGMOID (C.11.2.1.3.1), scaled to 0–1."""
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / max(width, 1e-9), -700, 700))))
    if function == "LINEAR_EXACT":
        return np.asarray(np.clip((values - centre) / max(width, 1e-9) + 0.5, 0.0, 1.0))
    return np.asarray(np.clip((values - (centre - 0.5)) / max(width - 1.0, 1e-9) + 0.5, 0.0, 1.0))


def _by_lut(values: NDArray[Any], attributes: Dataset) -> NDArray[np.float64]:
    bits = int(attributes.VOILUTSequence[0].LUTDescriptor[2])
    return np.asarray(np.clip(values.astype(np.float64) / max(2**bits - 1, 1), 0.0, 1.0))


def _stretched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return np.zeros_like(values) if high <= low else (values - low) / (high - low)


def _number(value: Any) -> float:
    return float(value if isinstance(value, str | int | float) else value[0])


def frame_attributes(dataset: Dataset, number: int) -> Dataset:
    """Rescale and window of one frame: its functional groups first, then the shared ones, then the top level."""
    result = Dataset()
    result.PixelRepresentation = dataset.get("PixelRepresentation", 0)
    result.BitsStored = dataset.get("BitsStored", 8)
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    own = [frames[number - 1]] if len(frames) >= number else []
    for source in (dataset, *shared, *own):
        groups = [source]
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            groups += list(source.get(name) or [])
        for group in groups:
            for keyword in _KEYWORDS:
                if keyword in group and group[keyword].value not in (None, ""):
                    result[keyword] = group[keyword]
    return result
