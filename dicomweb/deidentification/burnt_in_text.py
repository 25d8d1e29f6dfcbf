"""Text burnt into a picture: rows of strokes of one ink. A heuristic without a recogniser; figures in ADR 0038.

Letters of one line share their grey value, their height and their base line; anatomy does not. DICOM PS3.15 E.3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_LOWEST, _HIGHEST = 5, 64
_SMALL = 15
"""Letters up to this height have soft edges: their ink varies more, and more of them have to stand in a row."""
_INK_SPREAD, _INK_SPREAD_SMALL = 0.06, 0.2
_LEAST_LETTERS, _LEAST_LETTERS_SMALL = 4, 6
_LOOKS = ((9, 0.12), (9, 0.35), (25, 0.12))
"""Pairs of the window that takes the background away (pixels) and the least contrast: at the higher one, letters that
touch come apart."""
_LEAST_OF_INK = 0.35
_MARGIN_PX, _SIDE = 3, 5
_MOST_COMPONENTS = 20_000

Grey = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextRegion:
    """Where a line of text seems to be: rows and columns, the ends not included."""

    top: int
    left: int
    bottom: int
    right: int
    letters: int


@dataclass(frozen=True, slots=True)
class _Letter:
    top: int
    left: int
    bottom: int
    right: int
    ink: float

    @property
    def height(self) -> int:
        return self.bottom - self.top


def text_regions(frame: NDArray[np.generic], highest_px: int = _HIGHEST) -> list[TextRegion]:
    """Find lines of text in one frame.

    Parameters
    ----------
    frame : shape (row, column) or (row, column, channel), any depth
    highest_px : letters are at most this high (small pictures side by side in one frame look like a row of them)

    Returns
    -------
    One region for each line, in pixels of the frame, with a margin.
    """
    grey = _grey(frame)
    if grey is None:
        return []
    found: list[TextRegion] = []
    for picture in (grey, 1.0 - grey):
        for size, contrast in _LOOKS:
            found += _lines(_letters(picture, size, contrast, highest_px), grey.shape)
    return _merged(found)


def _grey(frame: NDArray[np.generic]) -> Grey | None:
    """Scale to 0 … 1 over the whole range: ink is drawn at an end of it, or near."""
    values = np.asarray(frame, dtype=np.float32)
    if values.ndim == 3:
        values = values.max(axis=2)
    low, high = float(values.min()), float(values.max())
    if high <= low or min(values.shape) < _LOWEST:
        return None
    return np.asarray((values - low) / (high - low), dtype=np.float32)


def _letters(picture: Grey, size: int, contrast: float, highest_px: int) -> list[_Letter]:
    """Connected strokes that stand out of their surroundings and are of one ink."""
    background = ndimage.grey_opening(picture, size=(size, size))
    mask = (picture - background) > contrast
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if not 0 < count <= _MOST_COMPONENTS:
        return []
    highest = min(highest_px, picture.shape[0] // 8)
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        rows, columns = place
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if not (_LOWEST <= height <= highest and width <= 2 * height):
            continue
        own = labels[place] == number
        area = int(own.sum())
        if not 0.12 * height * width <= area or area < height:
            continue
        values = picture[place][own]
        ink = float(np.percentile(values, 90))
        if float((values > ink - _spread(height)).mean()) < _LEAST_OF_INK:
            continue
        found.append(_Letter(rows.start, columns.start, rows.stop, columns.stop, ink))
    return found


def _spread(height: int) -> float:
    return _INK_SPREAD_SMALL if height <= _SMALL else _INK_SPREAD


def _lines(letters: list[_Letter], shape: tuple[int, ...]) -> list[TextRegion]:
    """Chains of letters side by side: same ink, like height, same base line or same top."""
    letters = sorted(letters, key=lambda one: one.left)
    used: set[int] = set()
    found = []
    for start in range(len(letters)):
        if start in used:
            continue
        chain = [start]
        for following in range(start + 1, len(letters)):
            last, one = letters[chain[-1]], letters[following]
            if one.left - last.right > 1.5 * max(last.height, one.height):
                if one.left - last.right > 2 * _HIGHEST:
                    break
                continue
            if following not in used and _fits(last, one):
                chain.append(following)
        tallest = max(letters[index].height for index in chain)
        if len(chain) >= (_LEAST_LETTERS_SMALL if tallest <= _SMALL else _LEAST_LETTERS):
            used |= set(chain)
            found.append(_region([letters[index] for index in chain], shape))
    return found


def _fits(last: _Letter, one: _Letter) -> bool:
    height = max(last.height, one.height)
    aligned = min(abs(last.bottom - one.bottom), abs(last.top - one.top)) <= max(1, 0.15 * height)
    return (
        aligned
        and one.left >= last.right - 0.2 * height
        and min(last.height, one.height) >= 0.55 * height
        and abs(last.ink - one.ink) <= _spread(height) / 2
    )


def _region(chain: list[_Letter], shape: tuple[int, ...]) -> TextRegion:
    height = max(one.height for one in chain)
    margin = _MARGIN_PX + height // 4
    return TextRegion(
        max(0, min(one.top for one in chain) - margin),
        max(0, min(one.left for one in chain) - margin - _SIDE * height),
        min(shape[0], max(one.bottom for one in chain) + margin),
        min(shape[1], max(one.right for one in chain) + margin + _SIDE * height),
        len(chain),
    )


def _merged(regions: list[TextRegion]) -> list[TextRegion]:
    """Join regions that overlap."""
    merged: list[TextRegion] = []
    for region in sorted(regions, key=lambda one: (one.top, one.left)):
        joined = region
        rest = []
        for other in merged:
            across = other.left < joined.right and joined.left < other.right
            if across and other.top < joined.bottom and joined.top < other.bottom:
                joined = TextRegion(
                    min(other.top, joined.top),
                    min(other.left, joined.left),
                    max(other.bottom, joined.bottom),
                    max(other.right, joined.right),
                    max(other.letters, joined.letters),
                )
            else:
                rest.append(other)
        merged = [*rest, joined]
    return merged
