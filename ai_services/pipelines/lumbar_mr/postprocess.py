"""Probabilities → one spine, disc instances in order, numbered levels, and a mask on the original grid (stage 4).

Numbering counts from the lowest disc (clinical model §1.1): the method is sacrum-only and says when it is unsure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging.resample import resampling_matrix
from ai_services.pipelines.lumbar_mr.column import (
    component_statistics,
    join_split_discs,
    without_cut_top,
    without_remnant,
)
from ai_services.pipelines.lumbar_mr.preprocess import WORKING_SPACING_MM
from ai_services.pipelines.lumbar_mr.structures import BACKGROUND as BACKGROUND
from ai_services.pipelines.lumbar_mr.structures import CANAL as CANAL
from ai_services.pipelines.lumbar_mr.structures import DISC as DISC
from ai_services.pipelines.lumbar_mr.structures import VERTEBRA as VERTEBRA
from ai_services.prediction import LUMBAR_DISC_LEVELS, Numbering

MINIMUM_DISC_MM3 = 400.0
MINIMUM_LOWEST_DISC_MM3 = 120.0
MINIMUM_DISC_AREA_MM2 = 60.0
MINIMUM_LOWEST_DISC_AREA_MM2 = 30.0
CENTRAL_SLAB_MM = 10.0
SPLINTER_MM = 17.0
FRAGMENT_DISTANCE_MM = 9.0
FRAGMENT_DEPTH_MM = 28.0
PITCH_RANGE_MM = (24.0, 47.0)
COUNT_RANGE = (5, 8)  # a tall field of view often shows eight; more are rare enough to doubt a count
BORDER_MM = 8.0
LOWEST_GAP_MM = (15.0, 55.0)
LARGEST_GAP_MM = 85.0  # one missed disc leaves a gap of about 72 mm
COLUMN_PITCH_MM = (18.0, 55.0)
TALLEST_DISC_MM = 28.0


@dataclass(frozen=True, slots=True)
class DiscInstance:
    """One disc on the working grid; `centroid` is (slice, row, column) in pixels, fractional."""

    label: int
    level: str | None
    centroid: tuple[float, float, float]
    volume_mm3: float


@dataclass(frozen=True, slots=True)
class Spine:
    """Structures on the working grid.

    Parameters
    ----------
    classes : uint8, shape (slice, row, column): class numbers, one connected spine
    instances : uint8, same shape: 0, or the `label` of a disc, counted from 1 for the lowest
    discs : from the lowest up
    doubts : what was left out and makes the numbering uncertain, in words
    """

    classes: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    discs: tuple[DiscInstance, ...]
    doubts: tuple[str, ...] = ()


def find_spine(probability: NDArray[np.float32], slice_mm: float) -> Spine:
    """Clean the classes and find the discs.

    Parameters
    ----------
    probability : shape (slice, 4, row, column) on the working grid
    slice_mm : distance between slices
    """
    classes = _keep_one_canal(keep_one_spine(likeliest(np.moveaxis(probability, 1, 0))))
    instances = np.zeros(classes.shape, dtype=np.uint8)
    if not (classes == DISC).any():
        return Spine(classes, instances, ())
    # All work on instances happens inside the box that holds discs and canal: a third of the volume or less.
    box = ndimage.find_objects((classes >= DISC).astype(np.uint8))[0]
    inner = classes[box]
    voxel_mm3 = slice_mm * WORKING_SPACING_MM**2
    components = _merge_fragments(_disc_components(inner), voxel_mm3)
    components = join_split_discs(components, inner, voxel_mm3)
    found = _plausible_discs(components, inner, slice_mm)
    found, doubts = without_remnant(found, inner)
    found = without_cut_top(found, box[1].start)
    discs = []
    for number, (label, centre, volume_mm3) in enumerate(found, start=1):
        instances[box][components == label] = number
        level = LUMBAR_DISC_LEVELS[number - 1] if number <= len(LUMBAR_DISC_LEVELS) else None
        row = centre + [part.start for part in box]
        discs.append(DiscInstance(number, level, (float(row[0]), float(row[1]), float(row[2])), volume_mm3))
    classes = np.where((classes == DISC) & (instances == 0), BACKGROUND, classes).astype(np.uint8)
    return Spine(classes, instances, tuple(discs), doubts)


def keep_one_spine(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Erase what is not connected, within about 4 mm in plane, to the largest group of structures."""
    near = ndimage.maximum_filter(classes > 0, size=(1, 9, 9))
    groups, count = ndimage.label(near)
    if count <= 1:
        return classes
    sizes = np.bincount(groups[classes > 0], minlength=count + 1)
    return np.where(groups == int(sizes[1:].argmax()) + 1, classes, BACKGROUND).astype(np.uint8)


def _keep_one_canal(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Erase canal apart from the main one: pieces of under a quarter of it in slices where the main one is not."""
    groups, count = ndimage.label(ndimage.maximum_filter(classes == CANAL, size=(1, 5, 5)))
    if count <= 1:
        return classes
    sizes = np.bincount(groups[classes == CANAL], minlength=count + 1)
    main = int(sizes[1:].argmax()) + 1
    slices = {int(index) for index in np.flatnonzero((groups == main).any(axis=(1, 2)))}
    stray = [
        label
        for label, place in enumerate(ndimage.find_objects(groups), start=1)
        if sizes[label] < sizes[main] / 4 and not slices & set(range(place[0].start, place[0].stop))
    ]
    return np.where((classes == CANAL) & np.isin(groups, stray), BACKGROUND, classes).astype(np.uint8)


def number_levels(spine: Spine) -> Numbering:
    """Whether counting from the lowest disc can be trusted, with the reason where it cannot.

    Parameters
    ----------
    spine : structures on the working grid, at least one disc
    """
    reasons = list(spine.doubts)
    rows = spine.classes.shape[1]
    count = len(spine.discs)
    if not COUNT_RANGE[0] <= count <= COUNT_RANGE[1]:
        reasons.append(f"{count} discs found, expected {COUNT_RANGE[0]} to {COUNT_RANGE[1]}")
    lowest_row = int(np.flatnonzero((spine.instances == 1).any(axis=(0, 2))).max())
    if (rows - 1 - lowest_row) * WORKING_SPACING_MM < BORDER_MM:
        reasons.append("the lowest disc lies at the image border")
    pitches = disc_pitches_mm(spine)
    if any(not PITCH_RANGE_MM[0] <= pitch <= PITCH_RANGE_MM[1] for pitch in pitches):
        reasons.append("the distance between neighbouring discs is unusual: " + ", ".join(f"{p:.0f}" for p in pitches))
    if _vertebra_below(spine):
        reasons.append("a vertebral body lies below the lowest disc")
    if len(spine.classes) > 3 and spine.discs[0].volume_mm3 < MINIMUM_DISC_MM3 * 2:
        reasons.append("the lowest disc is small: possible L5-S1 or transitional level")
    return Numbering("sacrum-only", confident=not reasons, reason="; ".join(reasons) or None)


def disc_pitches_mm(spine: Spine) -> list[float]:
    """In-plane distances between the centres of neighbouring discs, from the lowest up, millimetres."""
    centres = [np.array(disc.centroid[1:]) * WORKING_SPACING_MM for disc in spine.discs]
    return [float(np.linalg.norm(b - a)) for a, b in pairwise(centres)]


def longest_column(spine: Spine) -> int:
    """Most discs in a row that are stacked as in a spine: plausible distances, and a vertebral body between each two.

    Noise and heads give scattered look-alikes, but hardly ever a column.
    """
    longest = current = min(1, len(spine.discs))
    for lower, upper, pitch in zip(spine.discs, spine.discs[1:], disc_pitches_mm(spine), strict=False):
        middle = [round((a + b) / 2) for a, b in zip(lower.centroid, upper.centroid, strict=True)]
        rows = slice(max(0, middle[1] - 4), middle[1] + 5)
        columns = slice(max(0, middle[2] - 6), middle[2] + 7)
        body = float((spine.classes[middle[0], rows, columns] == VERTEBRA).mean())
        stacked = COLUMN_PITCH_MM[0] <= pitch <= COLUMN_PITCH_MM[1] and body >= 0.6
        current = current + 1 if stacked else 1
        longest = max(longest, current)
    return longest


def to_original_resolution(
    probability: NDArray[np.float32],
    spine: Spine,
    segment_of_class: dict[int, int],
    segment_of_disc: dict[int, int],
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
) -> NDArray[np.uint8]:
    """Segment numbers at the original resolution, still head up and anterior left.

    Parameters
    ----------
    probability : shape (slice, 4, row, column) on the working grid
    spine : structures on the working grid
    segment_of_class : segment number of VERTEBRA and CANAL
    segment_of_disc : segment number of each disc label
    shape, spacing_mm : rows and columns of the oriented images, and their spacing

    Returns
    -------
    uint8, shape (slice, row, column); `Orientation.undo` brings it onto the original images
    """
    grid = _BoxGrid(spine.classes, shape, spacing_mm)
    lookup = np.zeros(256, dtype=np.uint8)
    for label, number in segment_of_disc.items():
        lookup[label] = number
    oriented = np.zeros((len(spine.classes), *shape), dtype=np.uint8)
    for index in np.flatnonzero((spine.classes > 0).any(axis=(1, 2))):
        classes = spine.classes[index][grid.box]
        allowed = ndimage.maximum_filter(classes > 0, size=5)
        scores = probability[index][:, *grid.box].copy()
        scores[1:] *= allowed
        fine = likeliest(grid.by_row @ scores @ grid.by_column.T)
        # A fine disc pixel belongs to the disc instance at or beside it; discs lie further apart than this reaches.
        instances = spine.instances[index][grid.box]
        spread = np.where(instances > 0, instances, ndimage.maximum_filter(instances, size=7))
        result = np.zeros(fine.shape, dtype=np.uint8)
        for number in (VERTEBRA, CANAL):
            result[fine == number] = segment_of_class[number]
        disc = fine == DISC
        result[disc] = lookup[spread[grid.nearest][disc]]
        oriented[index][grid.fine_box] = result
    return oriented


def likeliest(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """First class with the highest score, as `numpy.argmax` along the first axis: over few classes twice as fast."""
    highest = scores[0]
    result = np.zeros(highest.shape, dtype=np.uint8)
    for number in range(1, len(scores)):
        np.putmask(result, scores[number] > highest, np.uint8(number))
        highest = np.maximum(highest, scores[number])
    return result


class _BoxGrid:
    """The part of the image that holds the spine, on the working and on the original grid."""

    def __init__(self, classes: NDArray[np.uint8], shape: tuple[int, int], spacing_mm: tuple[float, float]) -> None:
        boxes, fine_boxes, weights, nearest = [], [], [], []
        for axis in (0, 1):
            size, factor = classes.shape[axis + 1], spacing_mm[axis] / WORKING_SPACING_MM
            used = np.flatnonzero((classes > 0).any(axis=(0, 2 - axis)))
            low, high = max(0, int(used[0]) - 4), min(size, int(used[-1]) + 5)
            fine_low, fine_high = max(0, int(low / factor)), min(shape[axis], int(np.ceil(high / factor)))
            boxes.append(slice(low, high))
            fine_boxes.append(slice(fine_low, fine_high))
            matrix = resampling_matrix(size, shape[axis], factor)
            weights.append(np.ascontiguousarray(matrix[fine_low:fine_high, low:high]))
            position = np.rint((np.arange(fine_low, fine_high) + 0.5) * factor - 0.5) - low
            nearest.append(np.clip(position, 0, high - low - 1).astype(np.intp))
        self.box, self.fine_box = (boxes[0], boxes[1]), (fine_boxes[0], fine_boxes[1])
        self.by_row, self.by_column = weights
        self.nearest = np.ix_(nearest[0], nearest[1])


def _disc_components(classes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Connected discs in 3D; discs that touch by a thin bridge are parted by an in-plane erosion."""
    disc = classes == DISC
    whole, _ = ndimage.label(disc)
    cross = ndimage.generate_binary_structure(2, 1)[None]
    seeds, _ = ndimage.label(ndimage.binary_erosion(disc, structure=cross))
    seed_count = np.bincount(seeds[seeds > 0]) if seeds.any() else np.zeros(1, dtype=int)
    seeds = np.where(np.isin(seeds, np.flatnonzero(seed_count >= 25)), seeds, 0)
    result = np.asarray(whole, dtype=np.int32)
    next_label = int(whole.max()) + 1
    for label, place in enumerate(ndimage.find_objects(whole), start=1):
        if (place[1].stop - place[1].start) * WORKING_SPACING_MM < TALLEST_DISC_MM:
            continue
        inside = whole == label
        inner = np.unique(seeds[inside & (seeds > 0)])
        if len(inner) < 2:
            continue
        seed_map = np.where(inside & np.isin(seeds, inner), seeds, 0)
        index = ndimage.distance_transform_edt(
            seed_map == 0, sampling=(4, 1, 1), return_distances=False, return_indices=True
        )
        nearest = seed_map[tuple(index)]
        result[inside] = nearest[inside] + next_label
        next_label += int(inner.max()) + 1
    return result


def _merge_fragments(components: NDArray[np.int32], voxel_mm3: float) -> NDArray[np.int32]:
    """Join a small piece to a large disc at the same height (a torn or partly seen disc)."""
    labels, volume, centre = component_statistics(components, voxel_mm3)
    large = np.flatnonzero(volume >= MINIMUM_DISC_MM3)
    lookup = np.arange(int(components.max()) + 1, dtype=np.int32)
    for index in range(len(labels)):
        height_mm = np.abs(centre[large, 1] - centre[index, 1]) * WORKING_SPACING_MM
        depth_mm = np.abs(centre[large, 2] - centre[index, 2]) * WORKING_SPACING_MM
        near = (height_mm < FRAGMENT_DISTANCE_MM) & (depth_mm < FRAGMENT_DEPTH_MM) & (volume[large] > volume[index])
        if near.any():
            lookup[labels[index]] = labels[large[near][int(height_mm[near].argmin())]]
    for _ in range(3):  # a piece may join a disc that itself joined a larger one
        lookup = lookup[lookup]
    result: NDArray[np.int32] = lookup[components]
    return result


def _plausible_discs(
    components: NDArray[np.int32], classes: NDArray[np.uint8], slice_mm: float
) -> list[tuple[int, NDArray[np.float64], float]]:
    """Label, centre and volume of the discs from the lowest up: in front of the canal and seen beside its middle.

    The lowest disc may be short or partly seen, so it passes with a much smaller volume and section.
    """
    labels, volume, centre = component_statistics(components, slice_mm * WORKING_SPACING_MM**2)
    area = _central_area_mm2(components, labels, centre, classes, slice_mm)
    in_front = [index for index in range(len(labels)) if _in_front_of_canal(centre[index], classes)]
    # A series of one to three slices sees only a part of each disc's volume: its area alone decides.
    enough = MINIMUM_DISC_MM3 if len(classes) > 3 else 0.0
    kept = [index for index in in_front if volume[index] >= enough and area[index] >= MINIMUM_DISC_AREA_MM2]
    if kept:
        lowest_row = max(centre[index, 1] for index in kept)
        least = min(MINIMUM_LOWEST_DISC_MM3, enough or 60.0)
        kept += [
            index
            for index in in_front
            if LOWEST_GAP_MM[0] < (centre[index, 1] - lowest_row) * WORKING_SPACING_MM < LOWEST_GAP_MM[1]
            and volume[index] >= least
            and area[index] >= MINIMUM_LOWEST_DISC_AREA_MM2
        ]
    kept.sort(key=lambda index: -centre[index, 1])
    for index in list(kept[1:]):  # a splinter beside a disc is no disc; the lowest disc is never dropped
        others = [other for other in kept if other != index and volume[other] > 2 * volume[index]]
        if any(np.hypot(*(centre[index] - centre[other])[1:]) * WORKING_SPACING_MM < SPLINTER_MM for other in others):
            kept.remove(index)
    kept = _largest_run(kept, centre)
    return [(int(labels[index]), centre[index], float(volume[index])) for index in kept]


def _largest_run(kept: list[int], centre: NDArray[np.float64]) -> list[int]:
    """The largest group without a gap of more than two disc distances: beyond that lies no disc of this spine."""
    runs: list[list[int]] = [[]]
    for index in kept:
        if runs[-1] and np.hypot(*(centre[index] - centre[runs[-1][-1]])[1:]) * WORKING_SPACING_MM > LARGEST_GAP_MM:
            runs.append([])
        runs[-1].append(index)
    return max(runs, key=len)


def _central_area_mm2(
    components: NDArray[np.int32],
    labels: NDArray[np.intp],
    centre: NDArray[np.float64],
    classes: NDArray[np.uint8],
    slice_mm: float,
) -> NDArray[np.float64]:
    """Largest section of each component in the slices near the canal's middle at its height (scoliosis moves it)."""
    sections = np.stack(
        [np.bincount(plane.ravel(), minlength=int(components.max()) + 1)[labels] for plane in components]
    ) * (WORKING_SPACING_MM**2)
    result = np.zeros(len(labels))
    for number in range(len(labels)):
        row = round(float(centre[number, 1]))
        canal = (classes[:, max(0, row - 10) : row + 11] == CANAL).sum(axis=(1, 2))
        middle = float(np.average(np.arange(len(canal)), weights=canal)) if canal.any() else centre[number, 0]
        near = np.abs(np.arange(len(sections)) - middle) * slice_mm <= CENTRAL_SLAB_MM
        result[number] = sections[near, number].max(initial=0.0)
    return result


def _in_front_of_canal(centre: NDArray[np.float64], classes: NDArray[np.uint8]) -> bool:
    """Whether a point lies anterior of the canal at its height; True where the canal is not seen near that height."""
    row = round(float(centre[1]))
    band = classes[:, max(0, row - 6) : row + 7, :] == CANAL
    if not band.any():
        return True
    canal_column = float(np.mean(np.nonzero(band)[2]))
    return bool(centre[2] < canal_column)


def _vertebra_below(spine: Spine) -> bool:
    """Whether much vertebral body is labelled well below and in front: a lowest disc may have been missed."""
    if not spine.discs:
        return False
    lowest = spine.discs[0]
    start = round(lowest.centroid[1] + 12 / WORKING_SPACING_MM)
    middle = round(lowest.centroid[0])
    front = spine.classes[middle, start:, : round(lowest.centroid[2] + 20 / WORKING_SPACING_MM)]
    return bool((front == VERTEBRA).sum() * WORKING_SPACING_MM**2 > 150)
