"""Frames as pictures: JPEG, PNG or GIF, 8 bit, as the parameters ask. Runs in the codec process.

DICOM PS3.18 §8.3.5 (parameters), §8.7.4 (rendered media types); PS3.3 C.11.6 and C.10.6 (presentation states).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut

from dicomweb.retrieve.decoding import frame_array
from dicomweb.retrieve.drawing import drawn
from dicomweb.retrieve.graphics import Point, marks_of
from dicomweb.retrieve.grey_values import shown_values
from dicomweb.retrieve.placing import placed, placed_point
from dicomweb.retrieve.presentation_state import Presentation, presentation_of
from dicomweb.retrieve.rendering_parameters import Rendering

_DEFAULT_FRAME_MS = 100
_FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
)


def rendered(dataset: Dataset, numbers: Sequence[int], rendering: Rendering, state: Dataset | None = None) -> bytes:
    """Picture of one frame (from 1), or of several as an animated GIF.

    Parameters
    ----------
    state : a softcopy presentation state that is applied, where the parameters do not say otherwise
    """
    presentation = presentation_of(state, dataset) if state is not None else None
    pictures = [_picture(dataset, number, rendering, presentation, state) for number in numbers]
    target = BytesIO()
    first, profile = pictures[0], _profile(dataset, rendering, pictures[0])
    if rendering.media_type == "image/png":
        first.save(target, "PNG", **profile)
    elif rendering.media_type == "image/gif":
        more: dict[str, Any] = {"save_all": True, "append_images": pictures[1:], "loop": 0} if len(pictures) > 1 else {}
        first.save(target, "GIF", duration=_frame_ms(dataset), **more)
    else:
        first.save(target, "JPEG", quality=rendering.quality, **profile)
    return target.getvalue()


def animated(sources: Iterable[tuple[Dataset, Sequence[int]]], rendering: Rendering) -> bytes:
    """Frames of several instances as one animated GIF; what is of another size is fitted into that of the first."""
    pictures: list[Image.Image] = []
    frame_ms = _DEFAULT_FRAME_MS
    for dataset, numbers in sources:
        frame_ms = frame_ms if pictures else _frame_ms(dataset)
        for number in numbers:
            picture = _picture(dataset, number, rendering, None)
            if pictures and picture.size != pictures[0].size:
                picture = ImageOps.pad(picture, pictures[0].size)
            pictures.append(picture)
    target = BytesIO()
    first, *rest = pictures
    first.save(target, "GIF", save_all=True, append_images=rest, duration=frame_ms, loop=0)
    return target.getvalue()


def _picture(
    dataset: Dataset,
    number: int,
    rendering: Rendering,
    presentation: Presentation | None,
    state: Dataset | None = None,
) -> Image.Image:
    frame = frame_array(dataset, number, raw=False)
    window = rendering.window
    if frame.ndim == 2 and dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        picture = Image.fromarray(_eight_bit(np.asarray(apply_color_lut(frame, dataset))))
    elif frame.ndim == 3:
        picture = Image.fromarray(_eight_bit(frame))
    else:
        if window is None and presentation is not None:
            window = presentation.window
        shown = shown_values(frame, dataset, number, window)
        if presentation is not None and presentation.inverse:
            shown = 1.0 - shown
        picture = Image.fromarray(np.clip(np.rint(shown * 255), 0, 255).astype(np.uint8))
    stored = picture.size
    if presentation is not None:
        picture = presentation.turned(picture)
    turned = picture.size
    picture = placed(picture, rendering)
    marks = marks_of(state, str(dataset.SOPInstanceUID), number) if state is not None else []
    if marks and presentation is not None:

        def place(point: Point) -> Point:
            return placed_point(presentation.point(point, stored), turned, picture.size, rendering)

        picture = drawn(picture, marks, place, _font)
    _annotate(picture, dataset, rendering.annotation)
    return picture


def _eight_bit(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour of 16 bits a sample to 8."""
    return (frame >> 8).astype(np.uint8) if frame.dtype.itemsize == 2 else frame.astype(np.uint8)


def _annotate(picture: Image.Image, dataset: Dataset, kinds: tuple[str, ...]) -> None:
    lines = []
    if "patient" in kinds:
        lines += [str(dataset.get(name) or "") for name in ("PatientName", "PatientID", "PatientBirthDate")]
    if "technique" in kinds:
        names = ("Modality", "SeriesDescription", "SliceThickness", "EchoTime", "RepetitionTime", "KVP", "Exposure")
        lines += [f"{name} {dataset.get(name)}" for name in names if dataset.get(name) not in (None, "")]
    lines = [line for line in lines if line]
    if not lines:
        return
    size = max(picture.height // 32, 9)
    draw = ImageDraw.Draw(picture)
    draw.multiline_text(
        *((4, 4), "\n".join(lines)),
        font=_font(size),
        fill=(255,) * len(picture.getbands()) if picture.mode != "L" else 255,
        stroke_width=1,
        stroke_fill=(0,) * len(picture.getbands()) if picture.mode != "L" else 0,
    )


def _font(size: int) -> Any:
    for path in _FONTS:
        if Path(path).is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def _profile(dataset: Dataset, rendering: Rendering, picture: Image.Image) -> dict[str, Any]:
    """ICC profile to embed: the stored one, or sRGB; grey pictures have none."""
    if rendering.icc_profile in (None, "no") or picture.mode != "RGB":
        return {}
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    stored = dataset.get("ICCProfile")
    if stored is None and dataset.get("OpticalPathSequence"):
        stored = dataset.OpticalPathSequence[0].get("ICCProfile")
    if not stored:
        return {"icc_profile": standard.tobytes()}
    if rendering.icc_profile == "yes":
        return {"icc_profile": bytes(stored)}
    own = ImageCms.ImageCmsProfile(BytesIO(bytes(stored)))
    ImageCms.profileToProfile(picture, own, standard, inPlace=True)
    return {"icc_profile": standard.tobytes()}


def _frame_ms(dataset: Dataset) -> int:
    rate = dataset.get("RecommendedDisplayFrameRate") or dataset.get("CineRate")
    time_ms = dataset.get("FrameTime")
    value = float(time_ms) if time_ms else 1000 / float(rate) if rate else _DEFAULT_FRAME_MS
    return int(min(max(value, 20), 5000))
