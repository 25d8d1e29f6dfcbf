"""What of a grayscale softcopy presentation state is applied to a picture. Pure; runs in the codec process.

DICOM PS3.3 A.33 and C.11.6, C.11.8 (softcopy VOI LUT), C.10.6 (spatial transformation). Graphics, shutters and
displayed areas are not drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from pydicom import Dataset


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
        state.get("PresentationLUTShape") == "INVERSE",
        rotation if rotation in (90, 180, 270) else 0,
        state.get("ImageHorizontalFlip") == "Y",
    )


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, list | tuple) or hasattr(value, "__getitem__") else value)  # type: ignore[arg-type]
