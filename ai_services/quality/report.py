"""The quality report of a series: every measure, or why there is none, with pictures to look at.

A report is for people who clean an image database; it decides nothing about a patient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_services.imaging.geometry import pixel_values
from ai_services.imaging.volume import InvalidGeometryError
from ai_services.quality import header_measures, pixel_measures
from ai_services.quality.frames import parts_of
from ai_services.quality.measure import CannotLookError, Grade, Measure, measured, not_measured

VERSION = "1"
_WORST_FIRST = (Grade.POOR, Grade.DOUBTFUL, Grade.UNKNOWN, Grade.GOOD)


@dataclass(frozen=True, slots=True)
class SeriesReport:
    """What was found of one series; no name, no identifier of a person.

    Parameters
    ----------
    levels : vertebral levels are known only where a recognised study says so; this report measures coverage in mm
    part : which volume of the series, where it holds several
    repeats : how many further times the same places were imaged; only the first time is measured
    """

    series_instance_uid: str
    modality: str
    images: int
    measures: tuple[Measure, ...]
    seconds: float
    version: str = VERSION
    part: str = ""
    repeats: int = 0

    @property
    def grade(self) -> Grade:
        """The worst grade of a measure; what could not be looked at counts as worse than good."""
        return next(grade for grade in _WORST_FIRST if grade in {measure.grade for measure in self.measures})

    def as_json(self) -> dict[str, object]:
        """Return the report as plain values."""
        return asdict(self) | {"grade": self.grade}


def reports_of(datasets: Sequence[Dataset]) -> list[tuple[SeriesReport, NDArray[np.float32] | None]]:
    """Measure each volume of a series; a classic series is one, an enhanced one may hold several."""
    found = []
    for part in parts_of(datasets):
        report, stack = report_of(part.images)
        found.append((replace(report, part=part.name, repeats=part.repeats), stack))
    return found


def report_of(datasets: Sequence[Dataset]) -> tuple[SeriesReport, NDArray[np.float32] | None]:
    """Measure one volume.

    Parameters
    ----------
    datasets : single images with pixel data, any order

    Returns
    -------
    the report, and the grey values of shape (slice, row, column) in order of place; None when they cannot be read
    """
    began = time.perf_counter()
    measures = _of_headers(datasets)
    stack: NDArray[np.float32] | None = None
    try:
        stack = _stack(datasets)
    except CannotLookError as reason:
        failed = ("noise", "bias-field", "ghosting", "slice-shift", "wrap", "burnt-in-text")
        measures += [not_measured(code, "grey values", reason) for code in failed]
    else:
        measures += _of_pixels(stack, datasets[0], any_says_burnt_in=header_measures.says_burnt_in(datasets))
    first = datasets[0]
    return SeriesReport(
        series_instance_uid=str(first.SeriesInstanceUID),
        modality=str(first.get("Modality", "")),
        images=len(datasets),
        measures=tuple(measures),
        seconds=round(time.perf_counter() - began, 2),
    ), stack


def _of_headers(datasets: Sequence[Dataset]) -> list[Measure]:
    positions = "Image Position (Patient), PS3.3 C.7.6.2"
    return [
        _try("spacing-irregularity", positions, lambda: header_measures.irregularity_mm(datasets)),
        _try("missing-slices", positions, lambda: header_measures.missing_slices(datasets)),
        _try("slice-gap", f"{positions}; Slice Thickness", lambda: header_measures.gap_mm(datasets)),
        _try("head-foot-coverage", positions, lambda: header_measures.extent_mm(datasets)[0]),
        _try("left-right-coverage", positions, lambda: header_measures.extent_mm(datasets)[1]),
    ]


def _of_pixels(stack: NDArray[np.float32], first: Dataset, *, any_says_burnt_in: bool) -> list[Measure]:
    axis = header_measures.phase_axis(first)
    spacing = first.get("PixelSpacing")

    def letters() -> float:
        # What the sender says counts for more than what is looked for.
        return 12.0 if any_says_burnt_in else float(pixel_measures.burnt_in_letters(stack))

    def shift() -> float:
        if spacing is None or len(spacing) != 2:
            raise CannotLookError("the pixel spacing is not stated", "未注明像素间距")
        return pixel_measures.slice_shift_mm(stack, (float(spacing[0]), float(spacing[1])))

    text = _try("burnt-in-text", "extreme grey in one place of all slices; Burned In Annotation", letters)
    moved = _try("slice-shift", "phase correlation with the neighbours, doi 10.1364/OL.33.000156", shift)
    noise_method = "median of second differences, after doi 10.1006/cviu.1996.0060"
    field_method = "N4, doi 10.1109/TMI.2010.2046908"
    ghost_method = "background along the phase direction, after ACR test 7"
    wrap_method = "body at both borders across the phase direction"
    try:
        body = pixel_measures.foreground_of(stack)
    except CannotLookError as reason:
        methods = {"noise": noise_method, "bias-field": field_method, "ghosting": ghost_method, "wrap": wrap_method}
        return [*(not_measured(code, method, reason) for code, method in methods.items()), moved, text]
    return [
        _try("noise", noise_method, lambda: pixel_measures.noise_percent(stack, body)),
        _try("bias-field", field_method, lambda: pixel_measures.bias_percent(stack, body)),
        _try("ghosting", ghost_method, lambda: pixel_measures.ghosting_percent(stack, body, axis)),
        moved,
        _try("wrap", wrap_method, lambda: pixel_measures.wrap_percent(body, axis)),
        text,
    ]


def _try(code: str, method: str, look: Callable[[], float]) -> Measure:
    try:
        return measured(code, float(look()), method)
    except CannotLookError as reason:
        return not_measured(code, method, reason)


def _stack(datasets: Sequence[Dataset]) -> NDArray[np.float32]:
    """Stack the grey values in order of place, or as they come where places are not stated."""
    try:
        planes = [
            (header_measures.place_of(dataset, number), pixel_values(dataset))
            for number, dataset in enumerate(datasets)
        ]
    except InvalidGeometryError as reason:
        raise CannotLookError(reason.text_en, reason.text_zh) from reason
    if len({plane.shape for _, plane in planes}) > 1:
        raise CannotLookError("the images differ in size", "图像尺寸不一致")
    stack = np.stack([plane for _, plane in sorted(planes, key=lambda item: item[0])])
    if not np.isfinite(stack).all():
        raise CannotLookError("grey values are not finite numbers", "像素值含有非有限数值")
    return stack
