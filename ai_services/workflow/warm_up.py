"""Loads a model version and lets it speak once about nothing, so that the first study does not wait for it (stage 4).

At the start of a worker, of a pool's process, and when another version was released while the worker runs: the running
study keeps its version (`model_choice`), the next one finds the new one loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_services.workflow.pipelines import MR, kind_of

if TYPE_CHECKING:
    from ai_services.models.registry import Manifest


def warm_up(manifest: Manifest | None) -> None:
    """Load what a version needs; networks run once on an empty slice.

    Parameters
    ----------
    manifest : None for the version that the MR pipeline comes with

    Raises
    ------
    ModelIntegrityError, DeviceError
        As `models.runtime.open_session`.
    """
    kind_of(manifest.name if manifest else MR).warm_up(manifest)
