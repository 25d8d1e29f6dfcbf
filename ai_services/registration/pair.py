"""CT and MR series of one patient with what was outlined in them → a registration, or a refusal (stage 4).

Pure. Bodies are compared with bodies: arches differ more between the modalities than they help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from ai_services.imaging.geometry import volume_from_datasets
from ai_services.imaging.refusal import refusal
from ai_services.imaging.volume import InvalidGeometryError, Volume
from ai_services.prediction import PipelineError, Prediction
from ai_services.registration.quality import Quality
from ai_services.registration.register import AROUND_MM, Registration, RegistrationError, register

MARGIN_MM = AROUND_MM + 10.0
"""Kept around the vertebrae; the rest is not compared."""


def require_pair(fixed: Sequence[Dataset], moving: Sequence[Dataset]) -> None:
    """Refuse two series that must not be registered, whatever they show.

    Parameters
    ----------
    fixed, moving : instances of the CT and the MR series, headers suffice

    Raises
    ------
    PipelineError
        ``different-patients``, ``frame-of-reference-missing`` or ``same-frame-of-reference``.
    """
    patients = {_patient(dataset) for dataset in (*fixed, *moving)}
    if len(patients) != 1 or "" in {patient for patient, _ in patients}:
        raise refusal("different-patients")
    frames = [{str(dataset.get("FrameOfReferenceUID", "") or "") for dataset in series} for series in (fixed, moving)]
    if any(len(found) != 1 or "" in found for found in frames):
        raise refusal("frame-of-reference-missing")
    if frames[0] == frames[1]:
        raise refusal("same-frame-of-reference")


def register_pair(
    fixed: Sequence[Dataset], fixed_prediction: Prediction, moving: Sequence[Dataset], moving_prediction: Prediction
) -> Registration:
    """Register an MR series to a CT series.

    Parameters
    ----------
    fixed, moving : instances of the CT and the MR series with pixel data
    fixed_prediction, moving_prediction : of their pipelines

    Raises
    ------
    PipelineError
        As `require_pair`; ``not-registered`` with the measures that speak against it.
    """
    require_pair(fixed, moving)
    here, there = _cropped(fixed, fixed_prediction), _cropped(moving, moving_prediction)
    try:
        return register(here[0], there[0], here[1], there[1])
    except RegistrationError as exc:
        raise refusal("not-registered", str(exc), told_zh(exc.quality)) from exc


def told_zh(quality: Quality | None) -> str:
    """What was measured, in Chinese."""
    if quality is None:
        return "共有椎体过少, 或两者无重叠"

    def value(number: float | None, unit: str) -> str:
        return "未测得" if number is None else f"{number:.1f} {unit}" if unit else f"{number:.2f}"

    parts = [
        f"表面距离 {value(quality.surface_mm, 'mm')}",
        f"重叠度 {value(quality.overlap, '')}",
        f"中心距离 {value(quality.landmark_mm, 'mm')}",
        f"不同起点差异 {value(quality.spread_mm, 'mm')}",
        f"共有椎体 {quality.vertebrae}",
    ]
    return "; ".join([*parts, *(["上移或下移一节段更吻合"] if quality.better_elsewhere else [])])


def complete_bodies(prediction: Prediction) -> list[tuple[str, int]]:
    """Names and segment numbers of the vertebral bodies that are seen whole.

    Where discs are outlined (MR), a body is whole between two of them: the highest one may be cut by the field of
    view. CT outlines only vertebrae whose two discs were found.
    """
    bodies = [(str(item.level), item.number) for item in prediction.segments if item.label == "vertebra-body"]
    discs = [str(item.level) for item in prediction.segments if item.label == "disc"]
    if not discs:
        return bodies
    ends = [level.split("-") for level in discs if "-" in level]
    above, below = {lower for _, lower in ends}, {upper for upper, _ in ends}
    return [(name, number) for name, number in bodies if name in above & below]


def _cropped(series: Sequence[Dataset], prediction: Prediction) -> tuple[Volume, Mapping[str, Volume]]:
    """Grey values around the vertebrae, and the bodies on the same grid."""
    try:
        source = volume_from_datasets(series)
    except InvalidGeometryError as exc:
        raise PipelineError(exc.reason_code, exc.text_en, exc.text_zh) from exc
    if source.sop_instance_uids != prediction.sop_instance_uids:
        raise ValueError("the prediction is of other images")
    bodies = complete_bodies(prediction)
    seen = np.argwhere(np.isin(prediction.mask, [number for _, number in bodies]))
    if not len(seen):
        raise refusal("not-registered", "no whole vertebra is seen", "未见完整椎体")
    margin = np.ceil(MARGIN_MM / np.array(source.volume.spacing_mm)).astype(int)
    low = np.maximum(seen.min(axis=0) - margin, 0)
    high = np.minimum(seen.max(axis=0) + margin + 1, prediction.mask.shape)
    box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    affine = source.volume.affine_lps.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    mask = prediction.mask[box]
    return Volume(np.ascontiguousarray(source.volume.array[box]), affine), {
        name: Volume(_largest_piece(mask == number).astype(np.float32), affine) for name, number in bodies
    }


def _largest_piece(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A body is one piece; what else carries its number (of the sacrum, of a process) would move its centroid."""
    pieces, count = ndimage.label(inside)
    if count <= 1:
        return inside
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = pieces == int(sizes.argmax())
    return largest


def _patient(dataset: Dataset) -> tuple[str, str]:
    return str(dataset.get("PatientID", "") or "").strip(), str(dataset.get("IssuerOfPatientID", "") or "").strip()
