"""A SYNTHETIC sagittal T2-like MR series of the spine in a CT phantom, elsewhere by a known transform.

Grey values are made from Hounsfield units, so the pair is easier than a patient's; the released MR network outlines it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from pydicom.dataset import Dataset
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ai_services.imaging.ct_phantom import CtPhantom, CtSetting, ct_phantom
from ai_services.imaging.volume import Volume
from ai_services.registration.rigid import RigidTransform
from tests.builders.mr_series import mr_series

SEED = 3
TRUE = RigidTransform(
    Rotation.from_euler("xyz", (3.0, 2.0, -2.0), degrees=True).as_matrix(), np.array([-20.0, 15.0, 30.0])
)
"""From the CT's frame to the MR's."""
_SHAPE, _SLICE_MM, _PIXEL_MM = (15, 300, 200), 4.0, 0.8
_MIDDLE = np.array([0.0, 15.0, -7.0])
_HU = (-1000, -300, -100, -60, 0, 15, 35, 55, 70, 85, 110, 160, 300, 700)
_GREY = (0, 0, 700, 500, 900, 900, 300, 100, 200, 330, 420, 480, 120, 20)


@cache
def ct_of_the_pair() -> CtPhantom:
    """The CT that the MR series is of."""
    return ct_phantom(SEED, CtSetting(spacing_mm=(2.0, 1.3, 1.3)))


@cache
def _whole() -> Volume:
    """Hounsfield units of the pair's patient without noise, on a fine grid that holds all that the MR shows."""
    drawn = ct_phantom(SEED, CtSetting(spacing_mm=(1.0, 1.0, 1.0), noise_hu=0, width_mm=110, depth_mm=170))
    return Volume(drawn.pixels.astype(np.float32), drawn.affine_lps)


def mr_of_the_pair(true: RigidTransform = TRUE, **attributes: object) -> list[Dataset]:
    """The MR series; `attributes` overwrite or add DICOM keywords on each instance."""
    source = _whole()
    affine = np.eye(4)
    affine[:3, :3] = np.array([[_SLICE_MM, 0, 0], [0, 0, _PIXEL_MM], [0, -_PIXEL_MM, 0]])
    affine[:3, 3] = true.apply(_MIDDLE) - affine[:3, :3] @ ((np.array(_SHAPE) - 1) / 2)
    points = np.indices(_SHAPE).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    index = source.to_index(true.inverse().apply(points)).T
    hu = ndimage.map_coordinates(source.array, index, order=1, cval=-1000).reshape(_SHAPE)
    grey = ndimage.gaussian_filter(np.interp(hu, _HU, _GREY), (0, 0.8, 0.8))
    grey += np.abs(np.random.default_rng(1).normal(0, 15, _SHAPE))
    return mr_series(np.clip(grey, 0, 4000).astype(np.uint16), affine, **attributes)
