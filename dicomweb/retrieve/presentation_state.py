"""What of a grayscale softcopy presentation state is applied to a picture. Pure; runs in the codec process.

DICOM PS3.3 A.33 and C.11.6, C.11.8 (softcopy VOI LUT), C.10.6 (spatial transformation); graphics: `graphics.py`.
Shutters and displayed areas are not drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from pydicom import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

STATES = (GrayscaleSoftcopyPresentationStateStorage,)


@dataclass(frozen=True, slots=True)
class Presentation:
    """A window, an inversion, and how the picture is turned: rotated clockwise, then mirrored left to right."""

    window: tuple[float, float, str] | None
    inverse: bool
    rotation: int
    flip: bool

    def turned(self, picture: Image.Image) -> Image.Image:
        """Turn a picture."""
        if self.rotation:
            picture = picture.rotate(-self.rotation, expand=True)
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else picture

    def point(self, point: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
        """Where a point (column, row) of an image of this size (columns, rows) lies in the turned picture."""
        (x, y), (columns, rows) = point, size
        turned = {0: (x, y), 90: (rows - y, x), 180: (columns - x, rows - y), 270: (y, columns - x)}[self.rotation]
        across = columns if self.rotation in (0, 180) else rows
        return (across - turned[0], turned[1]) if self.flip else turned


def presentation_of(state: Dataset, image: Dataset) -> Presentation:
    """Read what a presentation state says of one image."""
    window = None
    for item in state.get("SoftcopyVOILUTSequence") or []:
        named = [str(one.ReferencedSOPInstanceUID) for one in item.get("ReferencedImageSequence") or []]
        if "WindowCenter" in item and (not named or str(image.SOPInstanceUID) in named):
            centre, width = (_first(item[keyword].value) for keyword in ("WindowCenter", "WindowWidth"))
            window = (centre, width, str(item.get("VOILUTFunction") or "LINEAR"))
            break
    rotation = int(state.get("ImageRotation") or 0)
    return Presentation(
        window,
        _inverse(state, image),
        rotation if rotation in (90, 180, 270) else 0,
        state.get("ImageHorizontalFlip") == "Y",
    )


def _inverse(state: Dataset, image: Dataset) -> bool:
    """Whether the state turns round what the image alone would look like.

    A state says by its shape alone what is dark: the image's own MONOCHROME1 does not count (PS3.3 C.11.6, C.11.8).
    """
    shape = state.get("PresentationLUTShape")
    own = image.get("PhotometricInterpretation") == "MONOCHROME1"
    return (shape == "INVERSE") != own if shape else False


def images_of(state: Dataset) -> list[tuple[str, str, list[int]]]:
    """Return (series, instance, frames; none named: all) of the images a presentation state is for (PS3.3 C.11.11).

    Anything that is no grayscale softcopy presentation state is for none.
    """
    if state.get("SOPClassUID") not in STATES:
        return []
    return [
        (str(series.SeriesInstanceUID), str(image.ReferencedSOPInstanceUID), _numbers(image))
        for series in state.get("ReferencedSeriesSequence") or []
        for image in series.get("ReferencedImageSequence") or []
    ]


def _numbers(image: Dataset) -> list[int]:
    named = image.get("ReferencedFrameNumber")
    if named is None:
        return []
    return [int(named)] if isinstance(named, int | str) else [int(one) for one in named]


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, list | tuple) or hasattr(value, "__getitem__") else value)  # type: ignore[arg-type]
