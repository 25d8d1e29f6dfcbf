"""Graphic annotations of a presentation state: which lines and texts lie on one image. Pure; runs in the codec process.

DICOM PS3.3 C.10.5 (graphic annotation), C.10.7 (graphic layer): PIXEL is image-relative from the upper left corner
of the upper left pixel, DISPLAY a share of the displayed area. Compound graphics and MATRIX coordinates are not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

MOST_MARKS, MOST_POINTS, MOST_CHARACTERS = 500, 100_000, 1024
WHITE = (255, 255, 255)
Point = tuple[float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """A path through points, or the dots of one; `relative`: in shares of the picture."""

    points: tuple[Point, ...]
    relative: bool
    filled: bool
    colour: Colour


@dataclass(frozen=True, slots=True)
class Text:
    """Lines of text in a box (left upper, right lower corner) or beside a point; `anchor`: where a leader line ends.

    `justification` is LEFT, CENTER or RIGHT; box and anchor have units of their own.
    """

    text: str
    box: tuple[Point, Point] | None
    box_relative: bool
    anchor: Point | None
    anchor_relative: bool
    leader: bool
    justification: str
    colour: Colour


Mark = Line | Text


def marks_of(state: Dataset, sop_instance_uid: str, frame: int) -> list[Mark]:
    """Return what is drawn on a frame of an image, lowest layer first."""
    layers = {str(item.GraphicLayer): item for item in state.get("GraphicLayerSequence") or []}
    ordered = sorted(
        (item for item in state.get("GraphicAnnotationSequence") or [] if _is_for(item, sop_instance_uid, frame)),
        key=lambda item: int(_layer(layers, item).get("GraphicLayerOrder") or 0),
    )
    marks: list[Mark] = []
    points = 0
    for item in ordered:
        colour = colour_of(_layer(layers, item))
        for graphic in item.get("GraphicObjectSequence") or []:
            line = _line(graphic, colour)
            points += len(line.points) if line else 0
            marks += [line] if line and points <= MOST_POINTS else []
        marks += [text for entry in item.get("TextObjectSequence") or [] if (text := _text(entry, colour))]
        if len(marks) >= MOST_MARKS:
            break
    return marks[:MOST_MARKS]


def colour_of(layer: Dataset) -> Colour:
    """Colour that a layer recommends, as sRGB: CIELab (PS3.3 C.10.7.1.1, 16 bits), else grey, else white."""
    lab = layer.get("GraphicLayerRecommendedDisplayCIELabValue")
    if lab is not None and len(lab) == 3:
        return _srgb(lab[0] / 65535 * 100, lab[1] / 65535 * 255 - 128, lab[2] / 65535 * 255 - 128)
    grey = layer.get("GraphicLayerRecommendedDisplayGrayscaleValue")
    return WHITE if grey is None else (int(grey) >> 8,) * 3


def _layer(layers: dict[str, Dataset], item: Dataset) -> Dataset:
    return layers.get(str(item.get("GraphicLayer", "")), Dataset())


def _is_for(item: Dataset, sop_instance_uid: str, frame: int) -> bool:
    """Without a list of images it is for all that the state is for (PS3.3 C.10.5)."""
    images = item.get("ReferencedImageSequence") or []
    if not images:
        return True
    for image in images:
        if str(image.get("ReferencedSOPInstanceUID", "")) == sop_instance_uid:
            frames = image.get("ReferencedFrameNumber")
            listed = [frames] if isinstance(frames, int | str) else frames or []
            return not listed or frame in {int(one) for one in listed}
    return False


def _line(graphic: Dataset, colour: Colour) -> Line | None:
    units, kind = str(graphic.get("GraphicAnnotationUnits", "")), str(graphic.get("GraphicType", ""))
    points = _points(graphic.get("GraphicData"))
    if units not in ("PIXEL", "DISPLAY") or not points:
        return None
    if kind == "CIRCLE" and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        points = _round((x, y), (radius, 0.0), (0.0, radius))
    elif kind == "ELLIPSE" and len(points) == 4:
        (a, b, c, d) = points
        centre = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        points = _round(centre, ((b[0] - a[0]) / 2, (b[1] - a[1]) / 2), ((d[0] - c[0]) / 2, (d[1] - c[1]) / 2))
    elif kind not in ("POINT", "POLYLINE", "INTERPOLATED"):
        return None
    return Line(tuple(points), units == "DISPLAY", str(graphic.get("GraphicFilled", "N")) == "Y", colour)


def _round(centre: Point, one: Point, other: Point) -> list[Point]:
    turns = [math.tau * step / 72 for step in range(73)]
    return [
        (
            centre[0] + one[0] * math.cos(turn) + other[0] * math.sin(turn),
            centre[1] + one[1] * math.cos(turn) + other[1] * math.sin(turn),
        )
        for turn in turns
    ]


def _text(item: Dataset, colour: Colour) -> Text | None:
    text = str(item.get("UnformattedTextValue") or "")[:MOST_CHARACTERS].replace("\r\n", "\n").replace("\r", "\n")
    box_units, anchor_units = item.get("BoundingBoxAnnotationUnits"), item.get("AnchorPointAnnotationUnits")
    corners = _points(item.get("BoundingBoxTopLeftHandCorner")) + _points(item.get("BoundingBoxBottomRightHandCorner"))
    anchors = _points(item.get("AnchorPoint")) if anchor_units in ("PIXEL", "DISPLAY") else []
    box = (corners[0], corners[1]) if len(corners) == 2 and box_units in ("PIXEL", "DISPLAY") else None
    if not text.strip() or (box is None and not anchors):
        return None
    return Text(
        text,
        box,
        box_units == "DISPLAY",
        anchors[0] if anchors else None,
        anchor_units == "DISPLAY",
        str(item.get("AnchorPointVisibility", "N")) == "Y",
        str(item.get("BoundingBoxTextHorizontalJustification", "LEFT")),
        colour,
    )


def _points(data: Any) -> list[Point]:
    """Pairs of finite numbers; nothing where one is not."""
    values = [float(value) for value in data] if isinstance(data, Sequence) and not isinstance(data, str) else []
    if len(values) % 2 or not all(math.isfinite(value) for value in values):
        return []
    return list(zip(values[::2], values[1::2], strict=True))


def _srgb(lightness: float, a: float, b: float) -> Colour:
    """CIELab under D50 to sRGB (Bradford-adapted matrix, IEC 61966-2-1)."""
    fy = (lightness + 16) / 116
    x, y, z = (
        white * (value**3 if value > 6 / 29 else 3 * (6 / 29) ** 2 * (value - 4 / 29))
        for white, value in ((0.96422, fy + a / 500), (1.0, fy), (0.82521, fy - b / 200))
    )
    linear = (
        3.1338561 * x - 1.6168667 * y - 0.4906146 * z,
        -0.9787684 * x + 1.9161415 * y + 0.0334540 * z,
        0.0719453 * x - 0.2289914 * y + 1.4052427 * z,
    )
    red, green, blue = (_encoded(min(max(value, 0.0), 1.0)) for value in linear)
    return red, green, blue


def _encoded(value: float) -> int:
    return round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055))
