"""How a picture shall be made: the query parameters of rendered resources, checked before anything is read.

DICOM PS3.18 §8.3.5 (RESTful) and §9.4 (WADO-URI).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from foramen.kernel.errors import InvalidRequestError

FUNCTIONS = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}
"""Names of the query parameter → VOI LUT Function (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
ANNOTATIONS = ("patient", "technique")
ICC_PROFILES = ("no", "yes", "srgb")
_LARGEST_SIDE = 8192
RENDERED_QUERY = frozenset(("accept", "charset", "annotation", "quality", "viewport", "window", "iccprofile"))


@dataclass(frozen=True, slots=True)
class Rendering:
    """How to make a picture of a frame.

    Parameters
    ----------
    window : centre and width in output units of the modality LUT, and VOI LUT Function
    viewport : columns, rows that the picture is fitted into, its proportions kept
    region : left, top, width, height of the source in pixels; None: all of it
    relative_region : the region is in parts of the picture, 0–1, and not in pixels
    flip : mirrored left to right, top to bottom
    only_smaller : never enlarge (thumbnails)
    quality : 1–100 of a lossy encoding
    """

    media_type: str = "image/jpeg"
    window: tuple[float, float, str] | None = None
    viewport: tuple[int, int] | None = None
    region: tuple[float, float, float, float] | None = None
    relative_region: bool = False
    flip: tuple[bool, bool] = (False, False)
    only_smaller: bool = False
    quality: int = 90
    annotation: tuple[str, ...] = ()
    icc_profile: str | None = None

    def plain(self) -> dict[str, Any]:
        """JSON form, for the codec process."""
        return asdict(self)

    def within(self, side: int) -> Rendering:
        """Return the same, fitted into a square and never enlarged."""
        return replace(self, viewport=(side, side), only_smaller=True)

    @staticmethod
    def of(values: dict[str, Any]) -> Rendering:
        """Read what `plain` gave."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return Rendering(**given)


def rendering_of(query: Mapping[str, str], media_type: str, *, thumbnail: bool = False) -> Rendering:
    """Read the parameters of a rendered or thumbnail resource.

    Raises
    ------
    InvalidRequestError
        One is malformed or out of its bounds.
    """
    try:
        viewport, region, flip = _viewport(query["viewport"]) if query.get("viewport") else (None, None, (False, False))
        if thumbnail:
            viewport = viewport or (128, 128)
        quality = int(query.get("quality", "90"))
        if not 1 <= quality <= 100:
            raise ValueError("quality")
        return Rendering(
            media_type=media_type,
            window=_window(query["window"]) if "window" in query and not thumbnail else None,
            viewport=viewport,
            region=None if thumbnail else region,
            flip=(False, False) if thumbnail else flip,
            only_smaller=thumbnail,
            quality=quality,
            annotation=_words(query.get("annotation", ""), ANNOTATIONS),
            icc_profile=_word(query.get("iccprofile"), ICC_PROFILES),
        )
    except ValueError as exc:
        raise InvalidRequestError(
            "One of these is malformed: window=centre,width,linear|linear-exact|sigmoid; "
            "viewport=columns,rows[,left,top,width,height]; quality=1..100; annotation=patient,technique; "
            "iccprofile=no|yes|srgb",
            issue_code="value",
        ) from exc


def number(text: str) -> float:
    """A finite number.

    Raises
    ------
    ValueError
        Something else.
    """
    value = float(text)
    if not math.isfinite(value) or abs(value) > 1e12:
        raise ValueError("number")
    return value


def _window(text: str) -> tuple[float, float, str]:
    centre, width, *rest = text.split(",")
    function = FUNCTIONS.get(rest[0] if rest else "linear")
    size = number(width)
    if function is None or len(rest) > 1 or size < (1 if function == "LINEAR" else 1e-9):
        raise ValueError("window")
    return number(centre), size, function


def _viewport(
    text: str,
) -> tuple[tuple[int, int], tuple[float, float, float, float] | None, tuple[bool, bool]]:
    parts = text.split(",")
    if len(parts) not in (2, 6):
        raise ValueError("viewport")
    columns, rows = int(parts[0]), int(parts[1])
    if not (1 <= columns <= _LARGEST_SIDE and 1 <= rows <= _LARGEST_SIDE):
        raise ValueError("viewport")
    if len(parts) == 2:
        return (columns, rows), None, (False, False)
    left, top = (number(part) if part else 0.0 for part in parts[2:4])
    # An empty width or height: to the edge of the picture. A negative one: mirrored (PS3.18 §8.3.5.1.3).
    width, height = (number(part) if part else math.nan for part in parts[4:6])
    if left < 0 or top < 0 or width == 0 or height == 0:
        raise ValueError("viewport")
    region = (left, top, 0.0 if math.isnan(width) else abs(width), 0.0 if math.isnan(height) else abs(height))
    return (columns, rows), region, (width < 0, height < 0)


def _words(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if any(word not in known for word in found):
        raise ValueError("word")
    return found


def _word(text: str | None, known: tuple[str, ...]) -> str | None:
    if text is not None and text not in known:
        raise ValueError("word")
    return text
