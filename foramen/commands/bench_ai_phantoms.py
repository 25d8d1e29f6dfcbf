"""SYNTHETIC studies that `foramen bench ai` measures on."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foramen.demo.studies import DemoStudy

_ISSUER = "DEMO"
_DECLINED = 11
"""Has a dark patch that lumbar_mr takes for metal: it is declined, and no result comes to wait for."""
_drawn: dict[int, DemoStudy] = {}


def phantoms(count: int) -> list[DemoStudy]:
    """SYNTHETIC studies of different patients; drawn once, on all cores."""
    seeds = [seed for seed in range(1, count + 2) if seed != _DECLINED][:count]
    missing = [seed for seed in seeds if seed not in _drawn]
    if len(missing) > 3:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), context) as pool:
            _drawn.update(zip(missing, pool.map(_phantom, missing), strict=True))
    else:
        _drawn.update((seed, _phantom(seed)) for seed in missing)
    return [_drawn[seed] for seed in seeds]


def _phantom(seed: int) -> DemoStudy:
    from foramen.demo.studies import phantom_study

    return phantom_study(_ISSUER, seed)
