"""Numbers about one disc, read from its patch, for the gradient-boosted trees (stage 4).

Lengths in millimetres; T2 brightness relative to fluid and to bone marrow. What cannot be measured is NaN, which the
trees know how to treat. T1 is not read yet: the pipeline is given one series.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.pipelines.lumbar_mr.patch import (
    CANAL_CHANNEL,
    DISC_CHANNEL,
    PATCH_SPACING_MM,
    T2_CHANNEL,
    VERTEBRA_CHANNEL,
)

MM = PATCH_SPACING_MM
FEWEST_PIXELS = 60
HEIGHT_POSITIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
STRIPS_MM = ((1.0, 4.0), (4.0, 8.0))
RELATIVE = (
    "height_mean", "area", "t2_mean_fluid", "t2_core_fluid", "t2_p90_fluid", "t2_core_marrow", "t2_core_rim",
    "bulge_max", "bulge_area", "canal_share", "canal_min", "depth", "t2_p75_fluid", "height_50", "ratio_height",
)  # fmt: skip
NEIGHBOURS = ("height_mean", "t2_core_fluid", "bulge_max", "canal_min")

Row = dict[str, float]


def spine_features(
    patches: NDArray[np.float32], levels: Sequence[int], pitches_mm: Sequence[float]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Numbers of all discs of one spine, own and relative to the others.

    Parameters
    ----------
    patches : shape (disc, 5, row, column), see `patch.disc_patch`, from the lowest disc up
    levels : number of each disc counted from the lowest, from 0
    pitches_mm : distances between neighbouring discs, one fewer than discs

    Returns
    -------
    shape (disc, feature) float32, and the features' names
    """
    rows = [disc_features(patch) for patch in patches]
    count = len(rows)
    for index, row in enumerate(rows):
        row["level"] = float(levels[index])
        row["from_top"] = float(count - 1 - index)
        row["pitch_below"] = pitches_mm[index - 1] if index else float("nan")
        row["pitch_above"] = pitches_mm[index] if index < count - 1 else float("nan")
    own = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for name in RELATIVE:
        column = own[name]
        middle = float(np.nanmedian(column)) if np.isfinite(column).any() else float("nan")
        own[f"{name}_over_median"] = column - middle
        own[f"{name}_rank"] = _ranks(column)
        own[f"{name}_patient"] = np.full(count, middle)
    for name in NEIGHBOURS:
        padded = np.concatenate([[np.nan], own[name], [np.nan]])
        own[f"{name}_below"], own[f"{name}_above"] = padded[:-2], padded[2:]
    return np.stack(list(own.values()), axis=1).astype(np.float32), tuple(own)


def disc_features(patch: NDArray[np.float32]) -> Row:
    """Own numbers of one disc."""
    disc = _central_component(patch[DISC_CHANNEL] > 0.5)
    canal, bone = patch[CANAL_CHANNEL] > 0.5, patch[VERTEBRA_CHANNEL] > 0.5
    body = bone & (np.arange(bone.shape[1])[None, :] < _canal_front(canal, bone.shape[1]))
    row: Row = {}
    row.update(_shape(disc, patch[DISC_CHANNEL]))
    fluid = _percentile(patch[T2_CHANNEL][canal], 90)
    marrow = _percentile(patch[T2_CHANNEL][body], 50)
    row["marrow_fluid"] = marrow / max(fluid, 0.05)
    row.update(_brightness(patch[T2_CHANNEL], disc, fluid, "fluid"))
    row.update(_texture(patch[T2_CHANNEL], disc, fluid))
    row["t2_core_marrow"] = row["t2_core_fluid"] * fluid / max(marrow, 0.05)
    row.update(_contours(disc, body, canal))
    row.update(_canal(patch[T2_CHANNEL], disc, canal, fluid))
    row.update(_marrow(patch[T2_CHANNEL], disc, body, marrow, "t2"))
    return row


def _shape(disc: NDArray[np.bool_], probability: NDArray[np.float32]) -> Row:
    heights = disc.sum(axis=0) * MM
    used = np.flatnonzero(heights > 1)
    if len(used) < 8:
        used = np.arange(8)
    depth = len(used) * MM
    at = {f"height_{round(100 * p)}": float(np.median(_around(heights, used, p))) for p in HEIGHT_POSITIONS}
    area = float(disc.sum()) * MM**2
    height = area / depth
    return {
        "depth": depth,
        "area": area,
        "height_mean": height,
        "height_max": float(heights.max()),
        "ratio_height": height / depth,
        "ratio_posterior": at["height_90"] / max(at["height_10"], 0.5),
        "soft_area": float(probability[ndimage.binary_dilation(disc, iterations=3)].sum()) * MM**2 / max(area, 1.0),
        "certainty": _mean(probability[disc]),
        **at,
    }


def _brightness(grey: NDArray[np.float32], disc: NDArray[np.bool_], fluid: float, name: str) -> Row:
    inner = ndimage.binary_erosion(disc, iterations=1)
    values = grey[inner if inner.sum() >= FEWEST_PIXELS else disc] / max(fluid, 0.05)
    row = {f"t2_mean_{name}": _mean(values), f"t2_deviation_{name}": float(np.std(values)) if len(values) else np.nan}
    for percent in (10, 25, 50, 75, 90, 97):
        row[f"t2_p{percent}_{name}"] = _percentile(values, percent)
    return row


def _texture(grey: NDArray[np.float32], disc: NDArray[np.bool_], fluid: float) -> Row:
    """Core against rim, along the depth, across the height, and the dark band in the middle."""
    rows, columns = np.nonzero(disc)
    if len(columns) < FEWEST_PIXELS:
        rows, columns = np.nonzero(np.ones_like(disc[:8, :8]))
    along = (columns - columns.min()) / max(1, np.ptp(columns))
    top, size = np.zeros(disc.shape[1]), np.ones(disc.shape[1])
    for column in np.unique(columns):
        own = rows[columns == column]
        top[column], size[column] = own.min(), max(1, np.ptp(own))
    across = (rows - top[columns]) / size[columns]
    values = grey[rows, columns] / max(fluid, 0.05)
    core = (along > 0.3) & (along < 0.75) & (across > 0.25) & (across < 0.75)
    front, back = along < 0.2, along > 0.85
    row: Row = {f"t2_along_{i}": _mean(values[(along >= i / 6) & (along <= (i + 1) / 6)]) for i in range(6)}
    row["t2_core_fluid"] = _mean(values[core])
    row["t2_core_deviation"] = float(np.std(values[core])) if core.any() else float("nan")
    row["t2_core_rim"] = row["t2_core_fluid"] / max(_mean(values[front | back]), 0.02)
    row["t2_back_max"] = float(values[back].max()) if back.any() else float("nan")
    middle = (along > 0.3) & (along < 0.75)
    bands = [_mean(values[middle & (across >= i / 5) & (across <= (i + 1) / 5)]) for i in range(5)]
    row["t2_band"] = bands[2] - 0.5 * (bands[1] + bands[3])
    row["t2_edge_band"] = 0.5 * (bands[0] + bands[4]) - bands[2]
    slope = np.hypot(*np.gradient(ndimage.gaussian_filter(grey, 1.0)))[rows, columns] / max(fluid, 0.05)
    row["t2_gradient"], row["t2_core_gradient"] = _mean(slope), _mean(slope[core])
    return row


def _contours(disc: NDArray[np.bool_], body: NDArray[np.bool_], canal: NDArray[np.bool_]) -> Row:
    """How far the disc stands out of the line between the neighbouring bodies' edges, and how far these are offset."""
    names = ("bulge_max", "bulge_mean", "bulge_area", "bulge_front", "offset", "offset_front", "gap_canal")
    rows = np.flatnonzero(disc.any(axis=1))
    if len(rows) < 4:
        return dict.fromkeys(names, float("nan"))
    back = np.array([np.flatnonzero(disc[r])[-1] for r in rows]) * MM
    front = np.array([np.flatnonzero(disc[r])[0] for r in rows]) * MM
    above, below = _edges(body, rows[0] - 2, -1), _edges(body, rows[-1] + 2, 1)
    share = (rows - rows[0]) / max(1, np.ptp(rows))
    out = back - (above[1] + (below[1] - above[1]) * share)
    out_front = (above[0] + (below[0] - above[0]) * share) - front
    near = [np.flatnonzero(canal[r])[0] * MM - back[i] for i, r in enumerate(rows) if canal[r].any()]
    depth = max(5.0, float(back.max() - front.min()))
    values = (
        float(np.max(out)),
        float(np.mean(out)),
        float(np.clip(out, 0, None).sum() * MM),
        float(np.max(out_front)),
        (above[1] - below[1]) / depth,
        (above[0] - below[0]) / depth,
        float(np.min(near)) if near else float("nan"),
    )
    return dict(zip(names, values, strict=True))


def _edges(body: NDArray[np.bool_], start: int, step: int) -> tuple[float, float]:
    """Front and back edge (mm) of the body beside the disc: medians over 4 mm of rows."""
    found = []
    for row in range(start, start + step * 8, step):
        if 0 <= row < len(body) and body[row].sum() * MM > 15:
            used = np.flatnonzero(body[row])
            found.append((used[0] * MM, used[-1] * MM))
    if not found:
        return float("nan"), float("nan")
    front, back = np.median(np.array(found), axis=0)
    return float(front), float(back)


def _canal(grey: NDArray[np.float32], disc: NDArray[np.bool_], canal: NDArray[np.bool_], fluid: float) -> Row:
    """Canal at the disc against the canal above and below, and how bright its fluid is there."""
    width = canal.sum(axis=1) * MM
    rows = np.flatnonzero(disc.any(axis=1))
    first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (40, 56)
    here, above, below = width[first : last + 1], width[max(0, first - 24) : first - 8], width[last + 9 : last + 25]
    beside = _mean(np.concatenate([above, below]))
    values = grey[first : last + 1][canal[first : last + 1]]
    return {
        "canal_min": float(here.min()) if len(here) else float("nan"),
        "canal_mean": _mean(here),
        "canal_beside": beside,
        "canal_share": (float(here.min()) if len(here) else float("nan")) / max(beside, 2.0),
        "canal_above": _mean(above),
        "canal_below": _mean(below),
        "canal_bright": _mean(values) / max(fluid, 0.05),
        "canal_dark": _percentile(values, 25) / max(fluid, 0.05),
    }


def _marrow(
    grey: NDArray[np.float32], disc: NDArray[np.bool_], body: NDArray[np.bool_], marrow: float, name: str
) -> Row:
    """Brightness of the bone beside each endplate against the usual marrow."""
    rows = np.arange(disc.shape[0])[:, None]
    any_disc: NDArray[np.bool_] = np.asarray(disc.any(axis=0))
    top = np.where(any_disc, disc.argmax(axis=0), -1)
    bottom = np.where(any_disc, disc.shape[0] - 1 - disc[::-1].argmax(axis=0), -1)
    result: Row = {}
    for side, distance in (("above", top[None] - rows), ("below", rows - bottom[None])):
        means = []
        for low, high in STRIPS_MM:
            strip = body & any_disc[None] & (distance * MM >= low) & (distance * MM < high)
            values = grey[strip] / max(marrow, 0.05) if strip.sum() >= FEWEST_PIXELS else np.array([])
            means.append(_mean(values))
            for percent in (10, 90):
                result[f"{name}_{side}_{low:.0f}_p{percent}"] = _percentile(values, percent)
            result[f"{name}_{side}_{low:.0f}"] = means[-1]
        result[f"{name}_{side}_step"] = means[0] - means[1]
    return result


def _central_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    groups, count = ndimage.label(mask)
    if count <= 1:
        return mask
    centre = np.array(ndimage.center_of_mass(mask, groups, np.arange(1, count + 1)))
    size = ndimage.sum_labels(mask, groups, np.arange(1, count + 1))
    far = np.abs(centre[:, 0] - mask.shape[0] / 2) * MM
    result: NDArray[np.bool_] = groups == int(np.argmax(size - 40 * far)) + 1
    return result


def _canal_front(canal: NDArray[np.bool_], columns: int) -> NDArray[np.float64]:
    """Column of the canal's front in each row, shape (row, 1); filled from other rows where there is no canal."""
    has = canal.any(axis=1)
    if not has.any():
        return np.full((len(canal), 1), float(columns))
    front = np.interp(np.arange(len(canal)), np.flatnonzero(has), canal[has].argmax(axis=1))
    result: NDArray[np.float64] = front[:, None]
    return result


def _around(heights: NDArray[np.float64], used: NDArray[np.intp], share: float) -> NDArray[np.float64]:
    middle = round(share * (len(used) - 1))
    return heights[used[max(0, middle - 2) : middle + 3]]


def _ranks(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the spine's discs with a smaller value."""
    return np.array([np.mean(column < value) if np.isfinite(value) else np.nan for value in column])


def _mean(values: NDArray[np.floating]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _percentile(values: NDArray[np.floating], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else float("nan")
