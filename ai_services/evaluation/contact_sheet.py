"""Pictures for a reader: an image with outlines and a column of grades, and sheets of such pictures (stage 11).

Everything is drawn on one millimetre grid: an image whose rows and columns differ in scale looks as the patient does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

PIXEL_MM = 0.6
TALLEST_PX = 400
"""A view that would be higher is drawn smaller: where an image was given a wrong scale, it still fits the sheet."""
MARGIN_MM = 10.0
COLOURS: Mapping[int, tuple[int, int, int]] = {1: (90, 165, 255), 2: (255, 160, 30), 3: (20, 200, 110)}
TRUTH_COLOUR = (255, 255, 255)
INK, PALE, PAPER = (235, 240, 245), (150, 160, 172), (14, 18, 24)
AGREES, NEAR, WRONG = (110, 214, 140), (255, 205, 90), (255, 112, 102)
TEXT_PX, SMALL_PX = 15, 13

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Plane:
    """One image with its classes on their own grids.

    Parameters
    ----------
    grey : shape (row, column), any grey scale, spacing `grey_mm` (row, column)
    classes : 0 background, 1 vertebra, 2 disc, 3 canal, spacing `classes_mm`; both grids begin at the same outer corner
    truth : as `classes`, or None where nobody has drawn it
    """

    grey: NDArray[np.float32]
    grey_mm: tuple[float, float]
    classes: NDArray[np.uint8]
    classes_mm: tuple[float, float]
    truth: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Words beside a place, `row_mm` below the image's upper border; each word has its colour."""

    row_mm: float
    words: tuple[tuple[str, Colour], ...]


def view_of(plane: Plane) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column millimetres of the pixels to draw: what holds structures, with a margin."""
    size = [length * mm for length, mm in zip(plane.grey.shape, plane.grey_mm, strict=True)]
    used = np.nonzero(plane.classes)
    spans = []
    for axis in (0, 1):
        low, high = (0.0, size[axis]) if len(used[axis]) == 0 else _span(used[axis], plane.classes_mm[axis])
        spans.append((max(0.0, low), min(size[axis], high)))
    pixel_mm = max(PIXEL_MM, (spans[0][1] - spans[0][0]) / TALLEST_PX)
    rows, columns = (np.arange(low, high, pixel_mm) + pixel_mm / 2 for low, high in spans)
    return rows, columns


def draw_plane(plane: Plane) -> tuple[Picture, Picture]:
    """The image alone, and with outlines; both shape (row, column, 3)."""
    rows, columns = view_of(plane)
    grey = _sampled(plane.grey, plane.grey_mm, rows, columns)
    low, high = np.percentile(grey, (1, 99.5))
    shade = (np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1) ** 0.85 * 255).astype(np.uint8)
    plain = np.repeat(shade[..., None], 3, axis=2)
    outlined = plain.copy()
    if plane.truth is not None:
        for number in COLOURS:
            outlined[_outline(plane.truth == number, plane.classes_mm, rows, columns)] = TRUTH_COLOUR
    for number, colour in COLOURS.items():
        outlined[_outline(plane.classes == number, plane.classes_mm, rows, columns)] = colour
    return plain, outlined


def with_notes(
    plane: Plane, title: Sequence[tuple[str, Colour]], notes: Sequence[Note], *, width: int = 150
) -> Picture:
    """Image, image with outlines and a column of notes at the height of what they speak about."""
    rows, _ = view_of(plane)
    plain, outlined = draw_plane(plane)
    column = np.full((len(rows), width, 3), PAPER, dtype=np.uint8)
    image = Image.fromarray(np.concatenate([plain, outlined, column], axis=1))
    draw = ImageDraw.Draw(image)
    pixel_mm, below = rows[1] - rows[0], -TEXT_PX - 3.0
    for note in sorted(notes, key=lambda item: item.row_mm):
        below = max((note.row_mm - rows[0]) / pixel_mm - TEXT_PX / 2, below + TEXT_PX + 3)
        _write(draw, (2 * plain.shape[1] + 8, below), note.words, TEXT_PX)
    return titled(np.asarray(image), title)


def titled(picture: Picture, title: Sequence[tuple[str, Colour]]) -> Picture:
    """A picture under one line of text."""
    image = Image.new("RGB", (picture.shape[1], picture.shape[0] + TEXT_PX + 9), PAPER)
    image.paste(Image.fromarray(picture), (0, TEXT_PX + 9))
    _write(ImageDraw.Draw(image), (4, 3), title, TEXT_PX)
    return np.asarray(image)


def sheet(pictures: Sequence[Picture], columns: int, *, gap: int = 10) -> Picture:
    """Pictures row by row, each row as high as its highest."""
    lines = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    widths = [max(line[i].shape[1] for line in lines if i < len(line)) for i in range(min(columns, len(pictures)))]
    heights = [max(picture.shape[0] for picture in line) for line in lines]
    page = np.full((sum(heights) + gap * (len(lines) + 1), sum(widths) + gap * (len(widths) + 1), 3), PAPER, np.uint8)
    top = gap
    for line, height in zip(lines, heights, strict=True):
        left = gap
        for picture, width in zip(line, widths, strict=False):
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += width + gap
        top += height + gap
    return page


def grey_tile(grey: NDArray[np.float32], factor: int) -> Picture:
    """A small grey image, 0 to 1, enlarged smoothly; shape (row, column, 3)."""
    large = ndimage.zoom(grey, factor, order=1)
    return np.repeat((np.clip(large, 0, 1) ** 0.85 * 255).astype(np.uint8)[..., None], 3, axis=2)


def save(picture: Picture, path: Path, *, quality: int = 68) -> None:
    """Write a picture as WebP (https://developers.google.com/speed/webp), small enough for a documentation page."""
    Image.fromarray(picture).save(path, "WEBP", quality=quality, method=6)


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], words: Sequence[tuple[str, Colour]], size: int
) -> None:
    font = ImageFont.load_default(size)
    left = place[0]
    for word, colour in words:
        draw.text((left, place[1]), word, fill=colour, font=font)
        left += draw.textlength(word, font=font)


def _span(used: NDArray[np.intp], spacing_mm: float) -> tuple[float, float]:
    return float(used.min()) * spacing_mm - MARGIN_MM, float(used.max() + 1) * spacing_mm + MARGIN_MM


def _sampled(
    array: NDArray[np.float32], spacing_mm: tuple[float, float], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float32]:
    points = np.meshgrid(rows / spacing_mm[0] - 0.5, columns / spacing_mm[1] - 0.5, indexing="ij")
    result: NDArray[np.float32] = ndimage.map_coordinates(array, np.stack(points), order=1, mode="nearest")
    return result


def _outline(
    mask: NDArray[np.bool_],
    spacing_mm: tuple[float, float],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> NDArray[np.bool_]:
    inside = _sampled(ndimage.gaussian_filter(mask.astype(np.float32), 0.6), spacing_mm, rows, columns) > 0.5
    result: NDArray[np.bool_] = inside & ~ndimage.binary_erosion(inside)
    return result
