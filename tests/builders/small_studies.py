"""SYNTHETIC lumbar MR studies that are analysed in full at half the usual cost: fewer slices of fewer pixels."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from ai_services.imaging import phantom
from foramen.demo.studies import DemoStudy, phantom_study

SMALL: dict[str, Any] = {"slices": 8, "rows": 256, "columns": 208, "spacing_mm": (4.0, 1.1, 1.1)}


def draw_small(patch: pytest.MonkeyPatch) -> None:
    """While the patch holds, every phantom of this process that is asked for without a size is small."""
    patch.setattr(phantom, "lumbar_phantom", partial(phantom.lumbar_phantom, **SMALL))


def small_study(seed: int) -> DemoStudy:
    """The demonstration's phantom of this seed, small."""
    with pytest.MonkeyPatch.context() as patch:
        draw_small(patch)
        return phantom_study("DEMO", seed)
