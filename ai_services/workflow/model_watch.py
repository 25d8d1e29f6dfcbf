"""Has the models of the current releases loaded before a study asks: at start, and after each release (stage 4).

The new version is loaded beside the one that runs, in a thread of its own: a running study ends with the version it
began with (`model_choice`), and the next one does not wait.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ai_services.workflow.pipelines import PIPELINES
from ai_services.workflow.services import Services
from foramen.kernel.log import get_log

if TYPE_CHECKING:
    from ai_services.models.versions import ModelVersion

_MODELS_MODULE = "onnxruntime"


class ModelWatch:
    """Warms up what speaks now.

    Parameters
    ----------
    at_start : load models before the first study; else a worker stays small until one comes
    """

    def __init__(self, services: Services, *, at_start: bool) -> None:
        self._services, self._at_start = services, at_start
        self._warmed: set[str] = set()
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Begin to load each pipeline's current release that was not loaded yet."""
        if not (self._at_start or _MODELS_MODULE in sys.modules) or (self._thread and self._thread.is_alive()):
            return
        models = self._services.models
        if models is None:
            return
        found = [current for name in PIPELINES if (current := models.current(name)) is not None]
        cold = [current for current in found if current.digest not in self._warmed]
        self._warmed = {current.digest for current in found}  # once, also where it fails: a study says why
        if cold:
            self._thread = threading.Thread(target=self._warm, args=(cold,), name="warm-up", daemon=True)
            self._thread.start()

    def _warm(self, versions: Sequence[ModelVersion]) -> None:
        for version in versions:
            self._warm_one(version)

    def _warm_one(self, version: ModelVersion) -> None:
        from ai_services.workflow.warm_up import warm_up

        models = self._services.models
        try:
            self._services.configure_models()
            warm_up(models.open(version) if models is not None else None)
        except Exception as exc:  # noqa: BLE001  nothing waits for it; a study that needs the version is answered
            get_log().warning(
                "model could not be warmed up",
                pipeline=version.name,
                model_version=version.version,
                reason=type(exc).__name__,
            )
            return
        get_log().info("model warmed up", pipeline=version.name, model_version=version.version)
