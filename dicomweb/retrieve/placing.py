"""Cuts the region out of a picture, mirrors it and fits it into the viewport; and where its points go. Pure.

DICOM PS3.18 §8.3.5.1.3 (viewport), §9.4.4 (region of WADO-URI).
"""

from __future__ import annotations

from PIL import Image

from dicomweb.retrieve.graphics import Point
from dicomweb.retrieve.rendering_parameters import Rendering


def placed_point(point: Point, turned: tuple[int, int], size: tuple[int, int], rendering: Rendering) -> Point:
    """Where a point of the turned image lies in the picture that `placed` made of it."""
    left, top, right, bottom = _region(turned, rendering) or (0, 0, *turned)
    across, down = (point[0] - left) / (right - left), (point[1] - top) / (bottom - top)
    across, down = 1 - across if rendering.flip[0] else across, 1 - down if rendering.flip[1] else down
    return across * size[0], down * size[1]


def _region(size: tuple[int, int], rendering: Rendering) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the region in pixels; None: all of it."""
    if rendering.region is None:
        return None
    left, top, width, height = rendering.region
    if rendering.relative_region:
        left, width = left * size[0], width * size[0]
        top, height = top * size[1], height * size[1]
    right = min(left + (width or size[0]), size[0])
    bottom = min(top + (height or size[1]), size[1])
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    return int(left), int(top), max(round(right), int(left) + 1), max(round(bottom), int(top) + 1)


def placed(picture: Image.Image, rendering: Rendering) -> Image.Image:
    """Cut the region out, mirror it, fit it into the viewport."""
    box = _region(picture.size, rendering)
    if box is not None:
        picture = picture.crop(box)
    if rendering.flip[0]:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rendering.flip[1]:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if rendering.viewport is not None:
        scale = min(rendering.viewport[0] / picture.width, rendering.viewport[1] / picture.height)
        if not (rendering.only_smaller and scale >= 1):
            size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
            picture = picture.resize(size, Image.Resampling.BILINEAR)
    return picture
