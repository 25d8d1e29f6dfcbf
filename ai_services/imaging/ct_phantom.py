"""SYNTHETIC lumbar CT: vertebrae drawn as solids with their exact labels and geometry, for demos and tests.

No patient is in it. World coordinates are LPS millimetres (PS3.3 C.7.6.2): +x left, +y posterior, +z cranial. Shapes
are parametric, so that angles, widths and distances are known and not measured. HU of trabecular bone: 226 ± 44 under
30 years, 89 ± 38 at 90 or more (L1, n = 20,374, doi 10.1148/radiol.2019181648); other HU are usual textbook values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ai_services.imaging.ct_phantom_bones import ARCH, BODY, ILIUM, SACRUM, Bone, VertebraShape, chain

AIR_HU, FAT_HU, MUSCLE_HU, DISC_HU, SAC_HU = -1000.0, -100.0, 55.0, 85.0, 15.0
CORTEX_HU, ENDPLATE_HU, TABLE_HU = 750.0, 550.0, -350.0
CORTEX_MM = 1.3

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CtPhantom:
    """A SYNTHETIC CT series.

    Parameters
    ----------
    pixels : int16, shape (slice, row, column): Hounsfield units
    labels : uint8, same shape: values of `label_of`; 0 what is no spine
    affine_lps : shape (4, 4), maps (slice, row, column, 1) to LPS millimetres
    label_of : ``("L4", "body")`` → value in `labels`; parts are body, arch, sacrum, ilium
    shapes : name of the vertebra → what was drawn
    bones : the same with the places where they stand, from cranial to caudal
    gantry_tilt_deg : of the slices against their table's normal
    """

    pixels: NDArray[np.int16]
    labels: NDArray[np.uint8]
    affine_lps: NDArray[np.float64]
    label_of: Mapping[tuple[str, str], int]
    shapes: Mapping[str, VertebraShape]
    gantry_tilt_deg: float = 0.0
    bones: tuple[Bone, ...] = ()
    description: str = "SYNTHETIC lumbar phantom, CT"


@dataclass(frozen=True, slots=True)
class CtSetting:
    """How the SYNTHETIC scanner looks at the phantom.

    Parameters
    ----------
    spacing_mm : between slices, rows and columns
    trabecular_hu : 160 is middle age; 90 and less is very old
    noise_hu : standard deviation
    blur_mm : in-plane point spread, standard deviation
    gantry_tilt_deg : tilts the slices about the left-right axis; the table still moves along z
    z_range_mm : caudal and cranial end, L3 lies at 0; the default shows T12 to the upper sacrum
    lumbar : lumbar vertebrae above the sacrum, 5; 6 is a transitional spine
    rotation : shape (3, 3), and shift in millimetres: turns the patient, for registration
    """

    spacing_mm: tuple[float, float, float] = (1.5, 0.8, 0.8)
    trabecular_hu: float = 160.0
    noise_hu: float = 18.0
    blur_mm: float = 0.5
    gantry_tilt_deg: float = 0.0
    z_range_mm: tuple[float, float] = (-132.0, 118.0)
    width_mm: float = 150.0
    depth_mm: float = 140.0
    lumbar: int = 5
    rotation: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


def ct_phantom(seed: int = 0, setting: CtSetting | None = None) -> CtPhantom:
    """Draw a SYNTHETIC lumbar spine with sacrum and iliac bones in a CT volume.

    Parameters
    ----------
    seed : the same seed gives the same spine; facets, pedicles, canal and discs vary with it
    setting : of the SYNTHETIC scanner
    """
    used = setting or CtSetting()
    rng = np.random.default_rng(seed)
    bones = chain(rng, used.lumbar)
    affine, shape = _grid(used)
    labels = np.zeros(shape, dtype=np.uint8)
    values = _soft_tissue(shape, affine, used, bones, rng)
    numbers = {key: number for number, key in enumerate(_keys(bones), start=1)}
    marrow = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), 2)
    marrow /= max(float(marrow.std()), 1e-6)
    for bone in bones:
        _draw(bone, labels, values, affine, numbers, used, marrow)
    blur = [used.blur_mm / step for step in used.spacing_mm]
    blur[0] = max(blur[0], 0.35)  # a slice averages over its thickness
    values = ndimage.gaussian_filter(values, blur)
    values += rng.normal(0, used.noise_hu, shape).astype(np.float32)
    pixels = np.clip(np.rint(values), -1024, 3071).astype(np.int16)
    shapes = {bone.shape.name: bone.shape for bone in bones}
    return CtPhantom(pixels, labels, affine, numbers, shapes, used.gantry_tilt_deg, tuple(bones))


def _keys(bones: list[Bone]) -> Iterator[tuple[str, str]]:
    for bone in bones:
        for part in (BODY, ARCH) if not bone.sacral else (SACRUM, ILIUM) if bone.shape.name == "S1" else ():
            yield bone.shape.name, part


def _grid(used: CtSetting) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Affine and shape: rows run backwards (anterior to posterior), columns to the patient's left, slices upwards."""
    slice_mm, row_mm, column_mm = used.spacing_mm
    tilt = np.radians(used.gantry_tilt_deg)
    low, high = used.z_range_mm
    shape = (round((high - low) / slice_mm) + 1, round(used.depth_mm / row_mm), round(used.width_mm / column_mm))
    affine = np.eye(4)
    affine[:3, 0] = (0, 0, slice_mm)  # the table moves along z whatever the gantry does: slices are sheared
    affine[:3, 1] = np.array([0, np.cos(tilt), np.sin(tilt)]) * row_mm
    affine[:3, 2] = (column_mm, 0, 0)
    centre = affine[:3, 1] * shape[1] / 2
    affine[:3, 3] = np.array([-used.width_mm / 2, 22.0, low]) - centre
    return affine, (int(shape[0]), int(shape[1]), int(shape[2]))


def _world(index: NDArray[np.intp], affine: NDArray[np.float64], used: CtSetting) -> FloatArray:
    """Where voxels lie in the phantom's own frame, shape (voxel, 3)."""
    points = index @ affine[:3, :3].T + affine[:3, 3]
    own = (points - np.array(used.shift_mm)) @ used.rotation  # the inverse of rotating and shifting the patient
    result: FloatArray = own.astype(np.float32)
    return result


def _soft_tissue(
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    used: CtSetting,
    bones: list[Bone],
    rng: np.random.Generator,
) -> FloatArray:
    """Abdomen in front, muscle, canal and discs, fat under the skin, air, and the table."""
    values = np.empty(shape, dtype=np.float32)
    lattice = np.indices(shape[1:]).reshape(2, -1).T
    names = [bone for bone in bones if not bone.sacral]
    for number in range(shape[0]):
        index = np.column_stack([np.full(len(lattice), number), lattice])
        points = _world(index, affine, used)
        x, y, z = points.T
        skin = 88.0 - (x / 60) ** 2
        hu = np.full(len(points), MUSCLE_HU, dtype=np.float32)
        hu[(y < -22) & (np.hypot(x + 14, y + 36) > 10)] = -60.0  # bowel and fat
        hu[np.hypot(x + 14, y + 36) <= 10] = 45.0  # a great vessel
        hu[y > skin - 12] = FAT_HU
        hu[y > skin] = AIR_HU
        hu[(y > skin + 2) & (y < skin + 4)] = TABLE_HU
        values[number] = hu.reshape(shape[1:])
        for bone in names:
            if abs(float(z[0]) - bone.origin[2]) > 90:
                continue
            offset = points - bone.origin.astype(np.float32)
            near = np.flatnonzero((np.abs(offset) < (30, 45, 36)).all(axis=1))
            if len(near):
                local = bone.to_local(points[near])
                flat = values[number].reshape(-1)
                flat[near[bone.disc(local)]] = DISC_HU
                flat[near[bone.canal(local)]] = SAC_HU
    values += 4 * ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), 1.5) * 6
    return values


def _draw(
    bone: Bone,
    labels: NDArray[np.uint8],
    values: FloatArray,
    affine: NDArray[np.float64],
    numbers: Mapping[tuple[str, str], int],
    used: CtSetting,
    marrow: FloatArray,
) -> None:
    """Draw one bone: a shell of cortex around trabeculae, its parts labelled."""
    box = _box(bone, labels.shape, affine, used)
    if box is None:
        return
    local_shape = tuple(part.stop - part.start for part in box)
    index = np.indices(local_shape).reshape(3, -1).T + [part.start for part in box]
    local = bone.to_local(_world(index, affine, used))
    parts = {name: inside.reshape(local_shape) for name, inside in bone.parts(local).items()}
    solid = np.zeros(local_shape, dtype=np.bool_)
    for inside in parts.values():
        solid |= inside
    free = labels[box] == 0
    # The outermost voxel of bone is cortex whatever the slices are: end plates would vanish between thick ones.
    deep = ndimage.distance_transform_edt(solid, sampling=[min(step, CORTEX_MM * 0.95) for step in used.spacing_mm])
    shell = solid & (deep <= CORTEX_MM)
    view, label_view = values[box], labels[box]
    inner = solid & ~shell & free
    view[inner] = used.trabecular_hu + 18 * marrow[box][inner]
    ends = np.abs(local[:, 2].reshape(local_shape)) > bone.shape.height_mm / 2 - 3
    view[shell & free] = np.where(ends, ENDPLATE_HU, CORTEX_HU)[shell & free]
    for name, inside in parts.items():
        key = ("S1", name) if bone.sacral else (bone.shape.name, name)
        label_view[inside & free & (label_view == 0)] = numbers[key]


def _box(
    bone: Bone, shape: tuple[int, ...], affine: NDArray[np.float64], used: CtSetting
) -> tuple[slice, slice, slice] | None:
    """Part of the grid that can hold a bone."""
    ends = np.array(bone.reach_mm)
    corners = np.array([[ends[i, 0], ends[j, 1], ends[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    world = (bone.origin + corners @ bone.turn.T) @ used.rotation.T + np.array(used.shift_mm)
    index = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    low = np.clip(np.floor(index.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(index.max(axis=0)) + 1, 0, shape).astype(int)
    if (high <= low).any():
        return None
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
