"""In-memory DICOM CT series for tests: SYNTHETIC phantoms wrapped as classic single-frame instances."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from ai_services.imaging.ct_phantom import CtPhantom
from tests.builders.mr_series import mr_series

INTERCEPT = -1024


def ct_series(phantom: CtPhantom, **attributes: object) -> list[Dataset]:
    """Wrap a phantom as one series; `attributes` overwrite or add DICOM keywords on each instance."""
    stored = (phantom.pixels.astype(np.int32) - INTERCEPT).astype(np.uint16)
    fixed: dict[str, object] = {
        "SOPClassUID": CTImageStorage,
        "Modality": "CT",
        "SeriesDescription": "SYNTHETIC lumbar CT test series",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "RescaleSlope": 1,
        "RescaleIntercept": INTERCEPT,
        "RescaleType": "HU",
        "KVP": 120,
        "GantryDetectorTilt": phantom.gantry_tilt_deg,
        "SliceThickness": round(float(np.linalg.norm(phantom.affine_lps[:3, 0])), 4),
    }
    return mr_series(stored, phantom.affine_lps, **{**fixed, **attributes})
