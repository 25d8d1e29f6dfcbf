"""A volume with its place in the patient, validated once so that nobody checks again (stage 4).

Frame: DICOM PS3.3 C.7.6.2 (Image Plane), patient coordinates LPS in millimetres, voxel centres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terminology.analysis_reasons import ANALYSIS_REASONS


class InvalidGeometryError(ValueError):
    """The numbers do not describe a volume in patient space; `reason_code` says in which way."""

    def __init__(self, reason_code: str, text_en: str, text_zh: str) -> None:
        super().__init__(text_en)
        self.reason_code = reason_code
        self.text_en = text_en
        self.text_zh = text_zh

    @classmethod
    def of(cls, code: str) -> InvalidGeometryError:
        """The error in the words of `terminology.analysis_reasons`."""
        reason = ANALYSIS_REASONS[code]
        return cls(code, reason.display, reason.display_zh)


@dataclass(frozen=True, slots=True)
class Volume:
    """Grey values and where they are.

    Parameters
    ----------
    array : float32, shape (slice, row, column), finite
    affine_lps : shape (4, 4), maps (slice, row, column, 1) to LPS millimetres, voxel centres
    """

    array: NDArray[np.float32]
    affine_lps: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or self.array.dtype != np.float32:
            raise ValueError("array must be float32 with axes (slice, row, column)")
        if self.affine_lps.shape != (4, 4) or not np.isfinite(self.affine_lps).all():
            raise InvalidGeometryError.of("geometry-missing")
        if min(self.spacing_mm) <= 0 or abs(np.linalg.det(self.affine_lps[:3, :3])) < 1e-6:
            raise InvalidGeometryError.of("geometry-missing")
        if not np.isfinite(self.array).all():
            raise InvalidGeometryError.of("invalid-pixel-data")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances between neighbouring voxel centres: slice, row and column."""
        lengths = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    def to_lps(self, index: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map indices, shape (…, 3) in (slice, row, column), to LPS millimetres, shape (…, 3)."""
        result: NDArray[np.float64] = np.asarray(index, dtype=np.float64) @ self.affine_lps[:3, :3].T
        return result + self.affine_lps[:3, 3]

    def to_index(self, point_lps: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map LPS millimetres, shape (…, 3), to fractional (slice, row, column) indices."""
        inverse = np.linalg.inv(self.affine_lps[:3, :3])
        result: NDArray[np.float64] = (np.asarray(point_lps, dtype=np.float64) - self.affine_lps[:3, 3]) @ inverse.T
        return result
