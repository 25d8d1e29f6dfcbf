"""Loads a model version and lets it speak once about nothing, so that the first study does not wait for it (stage 4).

At the start of a worker, of a pool's process, and when another version was released while the worker runs: the running
study keeps its version (`model_choice`), the next one finds the new one loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_services.models.registry import Manifest

_SHAPE = (1, 320, 256)


def warm_up(manifest: Manifest | None) -> None:
    """Load the networks of a version and run them once on an empty slice.

    Parameters
    ----------
    manifest : None for the version that the pipeline comes with

    Raises
    ------
    ModelIntegrityError, DeviceError
        As `models.runtime.open_session`.
    """
    import numpy as np

    from ai_services.pipelines.lumbar_mr.infer import load_networks, networks_of

    networks = load_networks() if manifest is None else networks_of(manifest)
    networks.segment(np.zeros(_SHAPE, dtype=np.float32), 4.0)
