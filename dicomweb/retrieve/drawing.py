"""Draws graphic annotations on a picture, whatever its size, so that lines are thin and texts can be read.

DICOM PS3.3 C.10.5. Runs in the codec process. Lines and letters are drawn three times as large and reduced:
smooth edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image, ImageDraw

from dicomweb.retrieve.graphics import Line, Mark, Point, Text

_OVERSAMPLING = 3
_LARGEST_OVERLAY_PIXELS = 36_000_000
_LINE_SHARE = 1 / 500  # width of a line as a share of the picture's smaller side
_SMALLEST_LETTERS, _TEXT_SHARE = 9.0, 1 / 42
_SHADOW = (0, 0, 0, 190)
Place = Callable[[Point], Point]
"""Image coordinates → picture coordinates."""
Font = Callable[[int], Any]


def drawn(picture: Image.Image, marks: Sequence[Mark], place: Place, font: Font) -> Image.Image:
    """Draw marks on a picture; the result is RGB.

    Parameters
    ----------
    picture : grey or colour, 8 bit
    marks : lowest first
    place : where a point of the image lies in the picture
    font : size in pixels → font
    """
    scale = _OVERSAMPLING
    while scale > 1 and picture.width * picture.height * scale * scale > _LARGEST_OVERLAY_PIXELS:
        scale -= 1
    canvas = Image.new("RGBA", (picture.width * scale, picture.height * scale), (0, 0, 0, 0))
    pen = _Pen(ImageDraw.Draw(canvas), picture.size, scale, place, font)
    for mark in marks:
        pen.line(mark) if isinstance(mark, Line) else pen.text(mark)
    if scale > 1:
        canvas = canvas.resize(picture.size, Image.Resampling.BOX)
    result = picture.convert("RGBA")
    result.alpha_composite(canvas)
    return result.convert("RGB")


class _Pen:
    def __init__(self, draw: ImageDraw.ImageDraw, size: tuple[int, int], scale: int, place: Place, font: Font) -> None:
        self._draw, self._size, self._scale, self._place, self._font = draw, size, scale, place, font
        self._width = max(round(min(size) * _LINE_SHARE * scale), scale)

    def line(self, line: Line) -> None:
        points = [self._at(point, relative=line.relative) for point in line.points]
        if len(points) == 1:
            self._dot(points[0], line.colour)
            return
        if line.filled:
            self._draw.polygon(points, fill=line.colour)
        self._path(points, line.colour)

    def text(self, text: Text) -> None:
        size = max(self._size[1] * _TEXT_SHARE, _SMALLEST_LETTERS) * self._scale
        anchor = self._at(text.anchor, relative=text.anchor_relative) if text.anchor else None
        lines = text.text.split("\n")
        if text.box is not None:
            first, second = (self._at(corner, relative=text.box_relative) for corner in text.box)
            left, right = sorted((first[0], second[0]))
            top, bottom = sorted((first[1], second[1]))
            # A box that is small in this picture is no reason for letters that cannot be read.
            size = max(min(size, (bottom - top) / (1.2 * len(lines))), _SMALLEST_LETTERS * self._scale)
        font = self._font(round(size))
        box = self._draw.multiline_textbbox((0, 0), text.text, font=font, spacing=size * 0.2)
        width, height = box[2] - box[0], box[3] - box[1]
        if text.box is None:
            left, top = (anchor[0] + size, anchor[1] - height / 2) if anchor else (0.0, 0.0)
        else:
            free = {"LEFT": 0.0, "CENTER": 0.5, "RIGHT": 1.0}.get(text.justification, 0.0)
            left, top = left + (right - left - width) * free, (top + bottom - height) / 2
        left = min(max(left, 0.0), max(self._size[0] * self._scale - width, 0.0))
        top = min(max(top, 0.0), max(self._size[1] * self._scale - height, 0.0))
        if anchor is not None and text.leader:
            end = left - size * 0.25 if anchor[0] < left else left + width + size * 0.25
            self._path([(end, top + height / 2), anchor], text.colour)
            self._dot(anchor, text.colour)
        align = {"RIGHT": "right", "CENTER": "center"}.get(text.justification, "left")
        self._draw.multiline_text(
            (left - box[0], top - box[1]),
            text.text,
            font=font,
            fill=text.colour,
            spacing=size * 0.2,
            align=align,
            stroke_width=max(round(self._scale * 0.8), 1),
            stroke_fill=_SHADOW,
        )

    def _at(self, point: Point, *, relative: bool) -> Point:
        x, y = (point[0] * self._size[0], point[1] * self._size[1]) if relative else self._place(point)
        # Far outside is as good as just outside, and no reason to draw for ever.
        x, y = min(max(x, -self._size[0]), 2.0 * self._size[0]), min(max(y, -self._size[1]), 2.0 * self._size[1])
        return x * self._scale, y * self._scale

    def _path(self, points: list[Point], colour: tuple[int, int, int]) -> None:
        self._draw.line(points, fill=_SHADOW, width=self._width + 2 * max(self._scale // 2, 1), joint="curve")
        self._draw.line(points, fill=colour, width=self._width, joint="curve")

    def _dot(self, point: Point, colour: tuple[int, int, int]) -> None:
        radius = self._width * 1.4
        corners = [(point[0] - radius, point[1] - radius), (point[0] + radius, point[1] + radius)]
        self._draw.ellipse(corners, fill=colour, outline=_SHADOW)
