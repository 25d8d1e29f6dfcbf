"""One SYNTHETIC CT and what the pipeline says about it, shared by the tests of this folder."""

from __future__ import annotations

import pytest

from ai_services.imaging.ct_phantom import CtPhantom, CtSetting, ct_phantom
from ai_services.pipelines.lumbar_ct.pipeline import run
from ai_services.prediction import Prediction
from tests.builders.ct_series import ct_series


@pytest.fixture(scope="package")
def phantom() -> CtPhantom:
    """Old bone in a tilted gantry, 1 mm pixels: nothing about it is easy."""
    return ct_phantom(
        0, CtSetting(spacing_mm=(1.5, 1.0, 1.0), trabecular_hu=100.0, gantry_tilt_deg=10.0, width_mm=140, depth_mm=132)
    )


@pytest.fixture(scope="package")
def prediction(phantom: CtPhantom) -> Prediction:
    return run(ct_series(phantom, FrameOfReferenceUID="1.2.3.9"))
