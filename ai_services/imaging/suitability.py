"""Whether all images of a series belong together, are complete and fit into memory; headers suffice (stage 4).

DICOM PS3.3 C.7.6.2 (Image Plane), C.8.3.1 (MR Image). What is refused has a code of `terminology.analysis_reasons`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from pydicom.dataset import Dataset

from ai_services.imaging.geometry import image_orientation, place_in_patient
from ai_services.imaging.header_values import image_type, number_of
from ai_services.imaging.refusal import refusal
from ai_services.imaging.volume import InvalidGeometryError
from ai_services.prediction import PipelineError

FEWEST_SLICES = 3
"""POLICY: with fewer, one slice at most shows the canal, and nothing can be checked against a neighbour."""
LARGEST_SIDE = 4096
LARGEST_VOLUME_VOXELS = 90_000_000
"""A worker may take 1.5 GB; reading and resampling hold about three copies of the grey values as 4-byte numbers."""
LARGEST_FIELD_MM = 1000.0
LEAST_REACH_MM = 120.0
"""Five lumbar bodies and their discs are about 160 mm long in adults."""
LEAST_PIXEL_MM, LARGEST_PIXEL_MM = 0.1, 4.0
ECHO_TOLERANCE = 0.1
MISSING_SHARE = 1.5
"""Slices this much farther apart than the header says: every second one is missing, or more."""
# PS3.3 C.8.3.1.1.1 and vendors' fourth and later values of Image Type that name a kind of image of its own.
_KINDS = {
    *("M", "P", "R", "I", "M_FFE", "P_FFE", "M_SE", "P_SE", "M_IR", "R_IR", "I_IR", "PHASE MAP"),
    *("W", "F", "IP", "OP", "WATER", "FAT", "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "IN-PHASE", "OUT-PHASE"),
    *("ADC", "TRACEW", "FA", "T1 MAP", "T2 MAP", "T2_STAR MAP"),
}
_COUNTED_FROM = re.compile(r"\d+")


@contextmanager
def readable_headers() -> Iterator[None]:
    """Refuse a header whose geometry is not made of the numbers that belong there, wherever that shows."""
    try:
        yield
    except (TypeError, ValueError, IndexError, ArithmeticError) as exc:
        raise refusal("geometry-missing") from exc


def require_complete(instances: Sequence[Dataset]) -> None:
    """Refuse a series whose images do not make up one complete stack of one contrast.

    Parameters
    ----------
    instances : of one series, in any order; headers suffice

    Raises
    ------
    PipelineError
        ``too-large``, ``mixed-echoes``, ``field-of-view-too-small``, ``too-few-slices``, ``missing-slices``, or one of
        `place_in_patient`.
    """
    require_room(instances)
    if _mixes_contrasts(instances):
        raise refusal("mixed-echoes")
    try:
        order, affine = place_in_patient(instances)
    except InvalidGeometryError as exc:
        raise PipelineError(exc.reason_code, exc.text_en, exc.text_zh) from exc
    rows_mm, columns_mm = np.linalg.norm(affine[:3, 1:3], axis=0)
    reach_mm = max(int(instances[0].get("Rows", 0)) * rows_mm, int(instances[0].get("Columns", 0)) * columns_mm)
    if 0 < reach_mm < LEAST_REACH_MM:
        raise refusal("field-of-view-too-small", f"{reach_mm:.0f} mm", f"{reach_mm:.0f} mm")
    if len(instances) < FEWEST_SLICES:
        raise refusal("too-few-slices", f"{len(instances)}, at least {FEWEST_SLICES} are needed",
                      f"{len(instances)} 层, 至少需 {FEWEST_SLICES} 层")  # fmt: skip
    step_mm = abs(float(np.linalg.norm(affine[:3, 0])))
    first = instances[order[0]]
    said = [number_of(first, "SpacingBetweenSlices"), number_of(first, "SliceThickness")]
    # Slice thickness alone says little (gaps and overlaps are usual); a gap as wide as a slice is no usual protocol.
    if (said[0] and step_mm > MISSING_SHARE * said[0]) or (not said[0] and said[1] and step_mm > 2.5 * said[1]):
        raise refusal("missing-slices")
    expected = _images_announced(first)
    if expected is not None and len(instances) < expected:
        raise refusal("missing-slices", f"{len(instances)} of {expected}", f"仅有 {len(instances)}/{expected} 幅")


def require_room(instances: Sequence[Dataset]) -> None:
    """Refuse before any pixel is decoded what a worker cannot hold, or what no scanner makes of a spine.

    Raises
    ------
    PipelineError
        ``too-large`` or ``geometry-missing`` (a pixel size that no lumbar MR has).
    """
    for dataset in instances:
        rows, columns = int(dataset.get("Rows", 0) or 0), int(dataset.get("Columns", 0) or 0)
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        if max(rows, columns) > LARGEST_SIDE or rows * columns * max(frames, len(instances)) > LARGEST_VOLUME_VOXELS:
            raise refusal("too-large")
        spacing = dataset.get("PixelSpacing")
        if spacing is None or len(spacing) != 2 or image_orientation(dataset) is None:
            continue
        for size, pixel_mm in zip((rows, columns), map(float, spacing), strict=True):
            if not LEAST_PIXEL_MM <= pixel_mm <= LARGEST_PIXEL_MM or size * pixel_mm > LARGEST_FIELD_MM:
                raise refusal("geometry-missing", "the pixel size is not one of a patient", "像素尺寸不合理")


def _mixes_contrasts(instances: Sequence[Dataset]) -> bool:
    """Whether echo time, echo number or kind of image differ between the images."""
    echoes = [value for dataset in instances if (value := number_of(dataset, "EchoTime"))]
    if echoes and max(echoes) > min(echoes) * (1 + ECHO_TOLERANCE):
        return True
    numbers = {str(dataset.get("EchoNumbers", "") or "") for dataset in instances}
    return len(numbers) > 1 or len({_kind(dataset) for dataset in instances}) > 1


def _kind(dataset: Dataset) -> frozenset[str]:
    return frozenset(image_type(dataset)[2:]) & _KINDS


def _images_announced(dataset: Dataset) -> int | None:
    """How many slices the scanner says it took: Philips (2001,1018) Number of Slices MR; GE (0021,104F) Locations."""
    for group, owner, element in ((0x2001, "Philips Imaging DD 001", 0x18), (0x0021, "GEMS_RELA_01", 0x4F)):
        try:
            value = dataset.private_block(group, owner)[element].value
        except KeyError:
            continue
        if isinstance(value, bytes):
            value = int.from_bytes(value, "little")
        found = _COUNTED_FROM.search(str(value))
        if found is not None and int(found[0]) > 0:
            return int(found[0])
    return None
