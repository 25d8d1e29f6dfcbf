"""The solids of the SYNTHETIC CT phantom: a vertebra with pedicles, laminae, processes and facet joints; the sacrum.

Each bone has a frame of its own: X left, Y posterior, Z cranial, its origin in the middle of the body, millimetres.
A facet joint belongs to the lower of two vertebrae; the part of the joint that the upper one brings is placed by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BODY, ARCH, SACRUM, ILIUM = "body", "arch", "sacrum", "ilium"
FACET_GAP_MM = 2.6
FACET_THICK_MM = 6.5
FACET_HALF_WIDTH_MM = 8.0
PEDICLE_Z_MM = 5.0
SPINE_Y_MM = (36.0, 60.0)

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class VertebraShape:
    """What was drawn; lengths in millimetres, angles in degrees, sides as (right, left).

    Parameters
    ----------
    height_mm, depth_mm, half_width_mm : of the body
    canal_depth_mm, canal_width_mm : bony canal: wall to lamina in the midline, and between the pedicles
    pedicle_width_mm : least transverse width of each pedicle
    pedicle_height_mm : of both
    facet_deg : joint with the vertebra above, against the sagittal plane; NaN where there is none
    disc_mm : height of the disc below, in its middle
    """

    name: str
    height_mm: float
    depth_mm: float
    half_width_mm: float
    canal_depth_mm: float
    canal_width_mm: float
    pedicle_width_mm: tuple[float, float]
    pedicle_height_mm: float
    facet_deg: tuple[float, float]
    disc_mm: float


@dataclass(frozen=True, slots=True)
class Joint:
    """One facet joint, in the frame of the lower of its two vertebrae, as one of them draws its part.

    Parameters
    ----------
    centre : X and Y of the joint
    side : -1 right, 1 left
    angle_deg : against the sagittal plane
    z : range of the process in the frame of the bone that draws it
    seen_from : origin and axes of the lower vertebra in the frame of the upper one; None where the lower one draws
        its superior process (anterolateral of the joint)
    """

    centre: tuple[float, float]
    side: int
    angle_deg: float
    z: tuple[float, float]
    seen_from: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


@dataclass(frozen=True, slots=True)
class Bone:
    """One bone and where it stands: `turn` has the frame's axes as columns, in the phantom's world."""

    shape: VertebraShape
    origin: NDArray[np.float64]
    turn: NDArray[np.float64]
    joints: tuple[Joint, ...]
    sacral: bool = False
    segment: int = 0

    @property
    def reach_mm(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Opposite corners of a box around the bone, in its own frame."""
        if self.sacral:
            side = 74.0 if self.segment == 1 else 54.0
            return (-side, -24.0, -36.0), (side, 42.0, 44.0)
        return (-46.0, -20.0, -44.0), (46.0, 64.0, 32.0)

    def to_local(self, points: FloatArray) -> FloatArray:
        """World to the bone's frame, shape (voxel, 3)."""
        result: FloatArray = ((points - self.origin) @ self.turn).astype(np.float32)
        return result

    def parts(self, local: FloatArray) -> Mapping[str, BoolArray]:
        """Which points lie in which part."""
        if self.sacral:
            return _sacral_parts(self, local)
        shape = self.shape
        body = _body(shape, local)
        canal = _canal(shape, local)
        arch = _arch(shape, local)
        for joint in self.joints:
            arch |= _process(joint, local)
        wall = local[:, 1] > shape.depth_mm / 2
        return {BODY: body & ~wall, ARCH: arch & wall & ~canal}

    def disc(self, local: FloatArray) -> BoolArray:
        """Points between this body and the next below; bone is drawn over it."""
        x, y, z = local.T
        inside = (np.abs(x) / self.shape.half_width_mm) ** 2.4 + (np.abs(y) / (self.shape.depth_mm / 2)) ** 2.4 < 1
        found: BoolArray = inside & (z < 0) & (z > -self.shape.height_mm / 2 - self.shape.disc_mm - 4)
        return found

    def canal(self, local: FloatArray) -> BoolArray:
        """Points of the canal beside this body and its disc."""
        return _canal(self.shape, local) & (np.abs(local[:, 2]) < self.shape.height_mm / 2 + self.shape.disc_mm)


def chain(rng: np.random.Generator, lumbar: int) -> list[Bone]:
    """Bones from T12 (T11 above 5 lumbar ones) down to S3, along a lordotic curve, L3's middle at the origin."""
    names = ["T11", "T12", *(f"L{number}" for number in range(1, lumbar + 1)), "S1", "S2", "S3"]
    tilts = [-11.0, -9.0, *np.interp(np.linspace(0, 4, lumbar), range(5), [-7, -4, 0, 7, 18]), 40.0, 50.0, 54.0]
    shapes = [_shape(rng, name, lumbar) for name in names]
    turns = [_turn(float(tilt) + rng.normal(0, 1.0)) for tilt in tilts]
    origins = [np.zeros(3)]
    for upper, lower, turn, next_turn in zip(shapes, shapes[1:], turns, turns[1:], strict=False):
        half, next_half = upper.height_mm / 2 + upper.disc_mm / 2, lower.height_mm / 2 + upper.disc_mm / 2
        origins.append(origins[-1] - turn[:, 2] * half - next_turn[:, 2] * next_half)
    middle = origins[names.index("L3")]
    bones = []
    for number, shape in enumerate(shapes):
        frame = (origins[number] - middle, turns[number])
        below = None
        if number + 1 < len(shapes) and not shape.name.startswith("S"):
            below = (shapes[number + 1], origins[number + 1] - middle, turns[number + 1])
        joints = _joints(shape, frame, below)
        sacral = shape.name.startswith("S")
        bones.append(Bone(shape, frame[0], frame[1], joints, sacral, int(shape.name[1:]) if sacral else 0))
    return bones


def foramen_height_mm(upper: Bone, lower: Bone, number: int) -> float:
    """From the lower border of one pedicle to the upper border of the next, 3.5 mm behind the wall; 0 right, 1 left."""
    ends = []
    for bone, sign in ((upper, -1), (lower, 1)):
        shape = bone.shape
        x = (-1, 1)[number] * (shape.canal_width_mm + shape.pedicle_width_mm[number]) / 2
        edge = np.array([x, shape.depth_mm / 2 + 3.5, PEDICLE_Z_MM + sign * shape.pedicle_height_mm / 2])
        ends.append(bone.origin + bone.turn @ edge)
    return float(np.linalg.norm((ends[0] - ends[1])[1:]))


def _turn(tilt_deg: float) -> NDArray[np.float64]:
    """Axes of a bone whose caudal end leans backwards by `tilt_deg`."""
    sin, cos = np.sin(np.radians(tilt_deg)), np.cos(np.radians(tilt_deg))
    return np.array([[1.0, 0, 0], [0, cos, -sin], [0, sin, cos]])


def _shape(rng: np.random.Generator, name: str, lumbar: int) -> VertebraShape:
    place = {"T11": -1.0, "T12": 0.0, "S1": 6.0, "S2": 6.0, "S3": 6.0}.get(name, -1.0)
    if name.startswith("L"):
        place = 1.0 + 4.0 * (int(name[1:]) - 1) / (lumbar - 1)
    sacral = name.startswith("S")
    along = float(np.clip(place, 0, 6)) / 6
    base = 27.0 + 24.0 * along
    facets = tuple(float(base + rng.uniform(-5, 5)) for _ in range(2))
    width = 7.0 + 7.5 * along
    return VertebraShape(
        name=name,
        height_mm={"S1": 28.0, "S2": 23.0, "S3": 20.0}.get(name, 25.0 + 3.0 * along + rng.uniform(-0.7, 0.7)),
        depth_mm={"S2": 24.0, "S3": 18.0}.get(name, 32.0 + 3.0 * along),
        half_width_mm=21.0 + 4.5 * along,
        canal_depth_mm=float(15.5 + rng.uniform(-1.2, 1.8)) if not sacral else 13.0,
        canal_width_mm=float(22.0 + 4.0 * along + rng.uniform(-1, 1)),
        pedicle_width_mm=(float(width + rng.uniform(-0.8, 0.8)), float(width + rng.uniform(-0.8, 0.8))),
        pedicle_height_mm=float(15.0 - 1.5 * along),
        facet_deg=(facets[0], facets[1]),
        disc_mm={"S1": 1.0, "S2": 0.8}.get(name, float(6.5 + 4.5 * min(along, 0.8) + rng.uniform(-0.8, 0.8))),
    )


def _joints(
    shape: VertebraShape,
    frame: tuple[NDArray[np.float64], NDArray[np.float64]],
    below: tuple[VertebraShape, NDArray[np.float64], NDArray[np.float64]] | None,
) -> tuple[Joint, ...]:
    """The joints with the vertebra above (superior processes), and with the one below (inferior processes)."""
    joints = []
    if shape.name not in ("S2", "S3"):
        for number, side in enumerate((-1, 1)):
            centre = _joint_centre(shape, number)
            top = shape.height_mm / 2 + 7.5
            joints.append(Joint(centre, side, shape.facet_deg[number], (0.0, top)))
    if below is not None:
        lower, origin, turn = below
        for number, side in enumerate((-1, 1)):
            centre = _joint_centre(lower, number)
            seen = (frame[1].T @ (origin - frame[0]), frame[1].T @ turn)
            bottom = seen[0] + seen[1] @ np.array([*centre, lower.height_mm / 2 - 4.0])
            joints.append(Joint(centre, side, lower.facet_deg[number], (float(bottom[2]), -6.0), seen))
    return tuple(joints)


def _joint_centre(shape: VertebraShape, number: int) -> tuple[float, float]:
    side = (-1, 1)[number]
    return side * (shape.canal_width_mm / 2 + 5.0), shape.depth_mm / 2 + 16.5


def _process(joint: Joint, local: FloatArray) -> BoolArray:
    """A slab beside the joint: the superior process lies anterolateral of it, the inferior one posteromedial."""
    z = local[:, 2]
    placed = local if joint.seen_from is None else (local - joint.seen_from[0]) @ joint.seen_from[1]
    x, y = placed[:, 0] - joint.centre[0], placed[:, 1] - joint.centre[1]
    angle = np.radians(joint.angle_deg)
    along = joint.side * x * np.sin(angle) + y * np.cos(angle)
    across = -joint.side * x * np.cos(angle) + y * np.sin(angle)
    low, high = (-FACET_GAP_MM / 2 - FACET_THICK_MM, -FACET_GAP_MM / 2)
    if joint.seen_from is not None:
        low, high = -high, -low
    half = FACET_HALF_WIDTH_MM
    found: BoolArray = (across > low) & (across < high) & (np.abs(along) < half)
    return found & (z > joint.z[0]) & (z < joint.z[1])


def _body(shape: VertebraShape, local: FloatArray) -> BoolArray:
    x, y, z = np.abs(local[:, 0]), np.abs(local[:, 1]), np.abs(local[:, 2])
    waist = 1 - 0.07 * np.clip(1 - (z / (shape.height_mm / 2)) ** 2, 0, 1)
    radial = (x / (shape.half_width_mm * waist)) ** 2.4 + (y / (shape.depth_mm / 2)) ** 4
    hollow = 1.2 * np.clip(1 - radial, 0, 1)
    found: BoolArray = (radial < 1) & (z < shape.height_mm / 2 - hollow)
    return found


def _canal(shape: VertebraShape, local: FloatArray) -> BoolArray:
    """A triangle with its base at the wall: between the pedicles, and back to the lamina in the midline."""
    x, y = np.abs(local[:, 0]), local[:, 1] - shape.depth_mm / 2
    back = shape.canal_depth_mm * (1 - 0.55 * (x / (shape.canal_width_mm / 2)) ** 1.5)
    found: BoolArray = (y > 0) & (x < shape.canal_width_mm / 2) & (y < back)
    return found


def _arch(shape: VertebraShape, local: FloatArray) -> BoolArray:
    x, y, z = local[:, 0], local[:, 1] - shape.depth_mm / 2, local[:, 2]
    found = np.zeros(len(local), dtype=np.bool_)
    for side, width in zip((-1, 1), shape.pedicle_width_mm, strict=True):
        centre = side * (shape.canal_width_mm / 2 + width / 2)
        oval = ((x - centre) / (width / 2)) ** 2 + ((z - PEDICLE_Z_MM) / (shape.pedicle_height_mm / 2)) ** 2
        found |= (oval < 1) & (y > -2) & (y < 13)
        # Transverse process: a rod outwards and a little backwards.
        outward = side * x - shape.canal_width_mm / 2 - width
        rod = np.hypot(y - 9 - 0.15 * outward, (z - PEDICLE_Z_MM) * 0.8) < 4.2
        found |= rod & (outward > -3) & (outward < 20)
        # Pars: behind the pedicle, down to the lamina.
        found |= (np.abs(x - centre) < 5) & (y > 8) & (y < 17) & (z > -8) & (z < 6)
    back = shape.canal_depth_mm * (1 - 0.55 * (np.abs(x) / (shape.canal_width_mm / 2)) ** 1.5)
    lamina = (y >= back) & (y < back + 6.5) & (np.abs(x) < shape.canal_width_mm / 2 + 1) & (z > -10) & (z < 5)
    spinous = (np.abs(x) < 3.4) & (y > shape.canal_depth_mm) & (y < shape.canal_depth_mm + 27)
    spinous &= np.abs(z + 7 + 0.15 * (y - 20)) < 9
    result: BoolArray = found | lamina | spinous
    return result


def _sacral_parts(bone: Bone, local: FloatArray) -> Mapping[str, BoolArray]:
    """A sacral segment with its wings and back wall; the first brings joints and the iliac bones."""
    shape = bone.shape
    x, y, z = np.abs(local[:, 0]), local[:, 1], local[:, 2]
    canal = _canal(shape, local)
    tall = np.abs(z) < shape.height_mm / 2 + 0.6 * (bone.segment > 1)
    body = _body(shape, local)
    reach = {1: 52.0, 2: 44.0, 3: 34.0}[bone.segment]
    slope = 0.25 * np.clip(x - shape.half_width_mm, 0, None)
    wing = (x < reach) & (x > shape.half_width_mm - 6) & (y > -12 + 0.35 * x) & (y < 24) & tall & (z < 14 - slope)
    wall = shape.depth_mm / 2
    back = (y > wall) & (y < wall + 20) & (x < shape.canal_width_mm / 2 + 9) & tall
    if bone.segment == 1:
        back &= z < 2  # the interlaminar window lies above
    sacrum = (body | wing | back) & ~canal
    for joint in bone.joints:
        sacrum |= _process(joint, local) & ~canal
    parts: dict[str, BoolArray] = {SACRUM: sacrum}
    if bone.segment == 1:
        blade = np.abs(x - 60 - 0.12 * (z + 10)) < 5
        parts[ILIUM] = blade & (y > -14) & (y < 34) & (z > -34) & (z < 42)
    return parts
