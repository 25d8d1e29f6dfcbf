"""Where outlines, leader lines and texts of a key image lie (stage 5). Pure.

Texts stand in front of the spine, where a lumbar image is dark; behind it where there is no room in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ai_services.prediction import Prediction, Segment
from ai_services.results.key_image_text import disc_text
from ai_services.results.key_slice import KeySlice, anterior_is_left, end_point, outline, spread

LINE_SHARE = 0.026  # height of a line of text as a share of the image's rows
_CHARACTER_WIDTH = 0.56  # of a line's height: digits and letters of the usual fonts
_GAP_LINES = 1.5


@dataclass(frozen=True, slots=True)
class Mark:
    """What is drawn for one disc, in image coordinates (column, row).

    Parameters
    ----------
    segment : the disc
    path : outline, shape (point, 2)
    anchor : end of the disc that the text points to
    box : left, top, right, bottom of the text
    text_on_left : the text ends at the box's right side, else it begins at its left side
    """

    segment: Segment
    path: NDArray[np.float64]
    anchor: tuple[float, float]
    box: tuple[float, float, float, float]
    text: str
    text_on_left: bool


def lay_out(prediction: Prediction, key: KeySlice) -> list[Mark]:
    """Lay out one key image, from the highest disc down."""
    segments = {segment.number: segment for segment in prediction.segments}
    section = prediction.mask[key.index]
    paths = {number: outline(section == number) for number in key.segments}
    order = sorted(paths, key=lambda number: float(paths[number][:, 1].mean()))
    texts = {number: _text(segments[number], prediction) for number in order}
    rows, columns = section.shape
    line = LINE_SHARE * rows
    width = max(len(part) for text in texts.values() for part in text.split("\n")) * line * _CHARACTER_WIDTH
    left, near = _side(paths, prediction, columns, width, _GAP_LINES * line)
    height = max(text.count("\n") + 1 for text in texts.values()) * line * 1.15
    anchors = {number: end_point(paths[number], left=left) for number in order}
    half = height / 2
    centres = spread([anchors[number][1] for number in order], height + line / 4, (half + line, rows - half - 3 * line))
    marks = []
    for number, centre in zip(order, centres, strict=True):
        far = max(near - width, 0.0) if left else min(near + width, float(columns))
        sides = (far, near) if left else (near, far)
        box = (sides[0], max(centre - half, 0.0), sides[1], min(centre + half, float(rows)))
        marks.append(Mark(segments[number], paths[number], anchors[number], box, texts[number], left))
    return marks


def _side(
    paths: Mapping[int, NDArray[np.float64]], prediction: Prediction, columns: int, width: float, gap: float
) -> tuple[bool, float]:
    """Whether texts stand on the left, and the column where they come nearest to the discs."""
    first = min(float(path[:, 0].min()) for path in paths.values())
    last = max(float(path[:, 0].max()) for path in paths.values())
    left = anterior_is_left(prediction.affine_lps)
    room = (first if left else columns - last) - gap
    other = (columns - last if left else first) - gap
    if room < width and other > room:
        left = not left
    return left, max(first - gap, 1.0) if left else min(last + gap, columns - 1.0)


def _text(segment: Segment, prediction: Prediction) -> str:
    findings = [item for item in prediction.findings if item.segment_number == segment.number]
    return disc_text(findings, segment.level)
