"""SYNTHETIC lumbar MR: a procedural sagittal T2-like volume with its exact mask, for demos and tests.

No patient is in it. Orientation: rows head to feet, columns anterior to posterior, slices right to left (LPS).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

VERTEBRA, DISC, CANAL = 1, 2, 3
LEVELS = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1")

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class PhantomDisc:
    """What was drawn at one level: degeneration 0 (bright) … 1 (black), height, herniation depth."""

    level: str
    degeneration: float
    height_mm: float
    herniation_mm: float


@dataclass(frozen=True)
class Phantom:
    """A SYNTHETIC series.

    Parameters
    ----------
    pixels : uint16, shape (slice, row, column)
    mask : uint8, same shape: 0 background, 1 vertebra, 2 disc, 3 canal (sacrum is background, as in SPIDER)
    affine_lps : shape (4, 4), maps (slice, row, column, 1) to LPS millimetres
    discs : from the lowest level up
    """

    pixels: NDArray[np.uint16]
    mask: NDArray[np.uint8]
    affine_lps: NDArray[np.float64]
    discs: tuple[PhantomDisc, ...]
    description: str = "SYNTHETIC lumbar phantom, sagittal T2-like"


@dataclass(frozen=True)
class _Body:
    """One vertebral body (or sacral segment) in the sagittal plane: centre, tilt, size; millimetres and radians."""

    y: float
    z: float
    tilt: float
    height: float
    depth: float
    sacral: bool
    taper: float = 0.0  # share of the depth lost from the upper to the lower end plate


def lumbar_phantom(
    seed: int = 0,
    *,
    slices: int = 15,
    rows: int = 448,
    columns: int = 384,
    spacing_mm: tuple[float, float, float] = (4.0, 0.7, 0.7),
) -> Phantom:
    """Draw a SYNTHETIC lumbar spine T12 to the sacrum with a herniation at L4-L5.

    Parameters
    ----------
    seed : the same seed gives the same volume
    slices, rows, columns : size; the middle slice is the midsagittal plane
    spacing_mm : between slices, rows and columns
    """
    rng = np.random.default_rng(seed)
    discs = _draw_discs(rng)
    bodies = _chain(rng, discs)
    # z runs down from the top of the image, y from its anterior border; x is 0 in the midsagittal plane.
    z = (np.arange(rows, dtype=np.float32) * spacing_mm[1])[:, None]
    y = (np.arange(columns, dtype=np.float32) * spacing_mm[2])[None, :]
    offset_z = (rows * spacing_mm[1] - 300) / 2
    offset_y = (columns * spacing_mm[2] - 250) / 2
    fields = [_local(body, z - offset_z, y - offset_y) for body in bodies]
    x_of = (np.arange(slices) - (slices - 1) / 2) * spacing_mm[0]
    images, masks = [], []
    texture = _Texture.draw(rng, rows, columns, spacing_mm)
    for x in x_of:
        mask, image = _draw_slice(float(x), bodies, discs, fields, texture, rng)
        images.append(image)
        masks.append(mask)
    affine = np.array(
        [
            [spacing_mm[0], 0, 0, float(x_of[0])],
            [0, 0, spacing_mm[2], -columns * spacing_mm[2] / 2],
            [0, -spacing_mm[1], 0, rows * spacing_mm[1] / 2],
            [0, 0, 0, 1],
        ],
        dtype=np.float64,
    )
    pixels = np.clip(np.stack(images) * 1000, 0, 4095).astype(np.uint16)
    return Phantom(pixels, np.stack(masks), affine, discs)


def _draw_discs(rng: np.random.Generator) -> tuple[PhantomDisc, ...]:
    base = (0.75, 0.7, 0.3, 0.45, 0.15, 0.1)
    height = (8.0, 9.0, 10.5, 9.5, 8.5, 7.0)
    discs = []
    for level, degeneration, mm in zip(LEVELS, base, height, strict=True):
        worn = float(np.clip(degeneration + rng.uniform(-0.12, 0.12), 0, 1))
        discs.append(
            PhantomDisc(
                level=level,
                degeneration=worn,
                height_mm=float(mm * (1.12 - 0.3 * worn) * rng.uniform(0.93, 1.07)),
                herniation_mm=float(rng.uniform(4.5, 6.5)) if level == "L4-L5" else 0.0,
            )
        )
    return tuple(discs)


def _chain(rng: np.random.Generator, discs: tuple[PhantomDisc, ...]) -> list[_Body]:
    """Bodies from the top (T11, outside the image) down to S3, along a lordotic curve."""
    gaps = [7.0, *(disc.height_mm for disc in reversed(discs)), 1.2, 0.8]
    tilts = np.radians([-12, -9, -6, -3, 2, 8, 18, 42, 52, 50]) + rng.normal(0, 0.02, 10)
    heights = [25.0, 25.5, 26.5, 27, 27.5, 27.5, 27.0, 29.0, 23.0, 19.0]
    depths = [34.0] * 8 + [22.0, 15.0]
    y, z = 128.0 + rng.uniform(-6, 6), -27.0 + rng.uniform(-3, 3)  # T11-T12 stays outside the image
    bodies = []
    for number, (tilt, height) in enumerate(zip(tilts, heights, strict=True)):
        sacral = number >= 7
        bodies.append(_Body(y, z, float(tilt), height, depths[number], sacral, taper=0.38 if sacral else 0.0))
        if number + 1 < len(heights):
            half = height / 2 + gaps[min(number, len(gaps) - 1)] / 2
            half_next = heights[number + 1] / 2 + gaps[min(number, len(gaps) - 1)] / 2
            next_tilt = float(tilts[number + 1])
            y += np.sin(tilt) * half + np.sin(next_tilt) * half_next
            z += np.cos(tilt) * half + np.cos(next_tilt) * half_next
    return bodies


def _local(body: _Body, z: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coordinates (u posterior, v down) of each pixel in a body's frame, millimetres."""
    dz, dy = z - body.z, y - body.y
    cos, sin = np.float32(np.cos(body.tilt)), np.float32(np.sin(body.tilt))
    return dy * cos - dz * sin, dz * cos + dy * sin


@dataclass(frozen=True)
class _Texture:
    coarse: FloatArray
    fine: FloatArray
    fat: FloatArray
    bias: FloatArray

    @staticmethod
    def draw(rng: np.random.Generator, rows: int, columns: int, spacing_mm: tuple[float, float, float]) -> _Texture:
        """Random fields shared by the slices of one phantom, each about unit standard deviation."""

        def field(sigma_mm: tuple[float, float]) -> FloatArray:
            sigma = (sigma_mm[0] / spacing_mm[1], sigma_mm[1] / spacing_mm[2])
            noise = ndimage.gaussian_filter(rng.standard_normal((rows, columns)).astype(np.float32), sigma)
            result: FloatArray = (noise / noise.std()).astype(np.float32)
            return result

        columns_mm = np.linspace(0, 1, columns, dtype=np.float32)[None, :]
        bias = 0.45 + 0.75 * columns_mm**1.3 + 0.06 * field((60, 60))
        return _Texture(field((9, 9)), field((1.2, 1.2)), field((7, 2.5)), bias.astype(np.float32))


def _draw_slice(
    x: float,
    bodies: list[_Body],
    discs: tuple[PhantomDisc, ...],
    fields: list[tuple[FloatArray, FloatArray]],
    texture: _Texture,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], FloatArray]:
    shape = texture.coarse.shape
    mask = np.zeros(shape, dtype=np.uint8)
    depth = _canal_depth(bodies, fields)
    image = _background(depth, fields[-4][1] < 0, texture, x)
    thecal_sac = fields[-2][1] < 0  # the sac ends at S2
    _draw_canal(x, depth, thecal_sac, mask, image, texture)
    for body, (u, v) in zip(bodies, fields, strict=True):
        _draw_vertebra(x, body, u, v, mask, image, texture)
    upper_first = list(reversed(discs))
    for number, disc in enumerate(upper_first, start=1):
        _draw_disc(x, disc, bodies[number], bodies[number + 1], fields[number], fields[number + 1], mask, image)
    image = ndimage.gaussian_filter(image, 0.7) * texture.bias
    real = image + rng.normal(0, 0.018, shape)
    result: FloatArray = np.hypot(real, rng.normal(0, 0.018, shape)).astype(np.float32)  # magnitude (Rician) noise
    return mask, result


def _canal_depth(bodies: list[_Body], fields: list[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Signed distance behind the posterior body line, millimetres, blended smoothly between neighbouring bodies."""
    weights = [np.exp(-np.abs(v) / 6.0) + 1e-9 for _, v in fields]
    behind = [u - body.depth / 2 for body, (u, _) in zip(bodies, fields, strict=True)]
    total = np.sum(weights, axis=0)
    result: FloatArray = (np.sum([w * b for w, b in zip(weights, behind, strict=True)], axis=0) / total).astype(
        np.float32
    )
    return result


def _background(depth: FloatArray, above_sacrum: NDArray[np.bool_], texture: _Texture, x: float) -> FloatArray:
    """Abdomen in front, muscle streaked with fat behind, subcutaneous fat, skin, air."""
    image = np.where(depth < 0, 0.22 + 0.12 * texture.coarse, 0.2 + 0.03 * texture.fine).astype(np.float32)
    vessel = (depth > -52) & (depth < -40) & (abs(x) < 12) & above_sacrum
    image[~above_sacrum & (depth < -14)] += 0.3  # fat before the sacrum
    image[vessel] = 0.06  # flow void of the great vessels
    muscle = depth > 18
    image = np.where(muscle & (texture.fat > 0.9), 0.75, image)
    skin = 62 + 6 * texture.coarse.mean(axis=1, keepdims=True)
    image = np.where(depth > skin - 22, 0.9 + 0.05 * texture.fine, image)
    image = np.where(depth > skin, 0.0, image)
    return np.maximum(image, 0).astype(np.float32)


def _draw_canal(
    x: float,
    depth: FloatArray,
    thecal_sac: NDArray[np.bool_],
    mask: NDArray[np.uint8],
    image: FloatArray,
    texture: _Texture,
) -> None:
    half_width = 10.5
    if abs(x) >= half_width:
        return
    half_depth = 7.5 * np.sqrt(1 - (x / half_width) ** 2)
    middle = 1.5 + 7.5
    inside = (np.abs(depth - middle) < half_depth) & thecal_sac
    mask[inside] = CANAL
    image[(depth > 0) & (depth < 1.5)] = 0.08  # posterior longitudinal ligament
    fat = (depth >= middle + half_depth) & (depth < middle + half_depth + 4) & (abs(x) < 7)
    image[fat] = 0.8
    image[inside] = 1.0 + 0.03 * texture.fine[inside]
    # Conus above, cauda equina along the posterior wall below: dark bands in bright fluid.
    rows = np.arange(depth.shape[0])[:, None] / depth.shape[0]
    cord = (np.abs(depth - middle - 1.0) < np.clip(4.2 - 14 * (rows - 0.2), 0, 4.2)) & (abs(x) < 5)
    image[inside & cord] = 0.45
    roots = np.abs(depth - middle - half_depth + 2.2) < 1.4
    image[inside & roots & (rows > 0.3) & (rows < 0.75)] = (
        0.6 + 0.08 * texture.fine[inside & roots & (rows > 0.3) & (rows < 0.75)]
    )


def _draw_vertebra(
    x: float,
    body: _Body,
    u: FloatArray,
    v: FloatArray,
    mask: NDArray[np.uint8],
    image: FloatArray,
    texture: _Texture,
) -> None:
    width = 23.0 if not body.sacral else 40.0
    if abs(x) < width:
        half_depth = body.depth / 2 * (1 - (abs(x) / width) ** 4) ** 0.5
        if body.taper:  # the front border runs backwards, the rear border stays in line
            lost = body.depth * body.taper * np.clip(v / body.height + 0.5, 0, 1)
            u, half_depth = u - lost / 2, half_depth - lost / 2
        half_height = body.height / 2 - 0.9 * np.clip(1 - (u / (body.depth / 2)) ** 2, 0, 1)
        waist = half_depth - 1.3 * np.clip(1 - (v / (body.height / 2)) ** 2, 0, 1)
        shape = np.abs(u / np.maximum(waist, 1)) ** 6 + np.abs(v / half_height) ** 8
        _paint_bone(shape < 1, (shape >= 1) & (shape < 1.5), body, mask, image, texture, keep_canal=True)
    if body.sacral:
        return
    rear = u - body.depth / 2
    if abs(x) < 4.5:  # spinous process
        shape = np.abs((rear - 33 - 0.25 * (v - 8)) / 13.5) ** 3 + np.abs((v - 10 - 0.25 * (rear - 33)) / 9) ** 3
    elif abs(x) < 10:  # lamina
        shape = np.abs((rear - 22) / 4.5) ** 2 + np.abs((v - 8) / 11) ** 2
    elif abs(x) < 19:  # pedicle and articular processes
        pedicle = np.abs((rear - 4) / 11) ** 4 + np.abs((v + 5) / 6.5) ** 4
        facet = np.abs((rear - 16 - 0.2 * v) / 6) ** 3 + np.abs((v - 3) / 19) ** 3
        shape = np.minimum(pedicle, facet)
    else:
        return
    _paint_bone(shape < 1, (shape >= 1) & (shape < 1.4), body, mask, image, texture, keep_canal=True)


def _paint_bone(
    inside: NDArray[np.bool_],
    rim: NDArray[np.bool_],
    body: _Body,
    mask: NDArray[np.uint8],
    image: FloatArray,
    texture: _Texture,
    *,
    keep_canal: bool,
) -> None:
    allowed = mask != CANAL if keep_canal else np.ones_like(inside)
    image[rim & allowed & (mask == 0)] = 0.1  # cortical bone is dark
    fill = inside & allowed
    image[fill] = 0.42 + 0.03 * texture.coarse[fill] + 0.03 * texture.fine[fill]
    if not body.sacral:
        mask[fill] = VERTEBRA


def _draw_disc(
    x: float,
    disc: PhantomDisc,
    upper: _Body,
    lower: _Body,
    upper_field: tuple[FloatArray, FloatArray],
    lower_field: tuple[FloatArray, FloatArray],
    mask: NDArray[np.uint8],
    image: FloatArray,
) -> None:
    half_width = 23.0
    if abs(x) >= half_width:
        return
    below = upper_field[1] - upper.height / 2  # distance below the upper body, bulging into its concave end plate
    above = -lower_field[1] - lower.height / 2
    u = (upper_field[0] + lower_field[0]) / 2
    half_depth = 17.5 * (1 - (abs(x) / half_width) ** 4) ** 0.5
    concave = -0.9 * np.clip(1 - (u / 17) ** 2, 0, 1)
    between = (below > concave) & (above > concave)
    # The disc is a wedge between two end plates; near the hinge both distances vanish, so bound it also by its height.
    between &= (np.abs(below) < 2.2 * disc.height_mm) & (np.abs(above) < 2.2 * disc.height_mm)
    inside = between & (np.abs(u) < half_depth)
    middle = np.abs(below - above) / 2
    if disc.herniation_mm > 0 and abs(x) < 9:
        focus = disc.herniation_mm * (1 - (x / 9) ** 2)
        reach = half_depth + focus
        tongue = (u > half_depth - 2) & (u < reach) & (middle < 4.5 * np.sqrt(np.clip((reach - u) / (focus + 2), 0, 1)))
        tongue &= (np.abs(below) < 3 * disc.height_mm) & (np.abs(above) < 3 * disc.height_mm)
        inside |= tongue
    nucleus = inside & (np.abs(u) < 0.62 * half_depth) & (middle < 0.34 * disc.height_mm)
    grey = 0.14 + 0.75 * (1 - disc.degeneration) ** 1.5
    image[inside] = 0.12
    image[nucleus] = grey
    mask[inside] = DISC
