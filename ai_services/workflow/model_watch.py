"""Has the models of the current release loaded before a study asks: at start, and after each release (stage 4).

The new version is loaded beside the one that runs, in a thread of its own: a running study ends with the version it
began with (`model_choice`), and the next one does not wait.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from ai_services.workflow.model_choice import PIPELINE
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
        self._warmed: str | None = None
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Begin to load the current release where it is not the one that was loaded last."""
        if not (self._at_start or _MODELS_MODULE in sys.modules) or (self._thread and self._thread.is_alive()):
            return
        models = self._services.models
        current = models.current(PIPELINE) if models is not None else None
        if current is None or current.digest == self._warmed:
            return
        self._warmed = current.digest  # once, also where it fails: the study that needs it says why
        self._thread = threading.Thread(target=self._warm, args=(current,), name="warm-up", daemon=True)
        self._thread.start()

    def _warm(self, version: ModelVersion) -> None:
        from ai_services.workflow.warm_up import warm_up

        models = self._services.models
        try:
            self._services.configure_models()
            warm_up(models.open(version) if models is not None else None)
        except Exception as exc:  # noqa: BLE001  nothing waits for it; a study that needs the version is answered
            get_log().warning("model could not be warmed up", model_version=version.version, reason=type(exc).__name__)
            return
        get_log().info("model warmed up", model_version=version.version)
