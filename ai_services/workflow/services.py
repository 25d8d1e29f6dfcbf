"""What the steps of a run use: the record, the pixels, the spool, the retry policy (stage 4).

Steps are functions that DBOS finds by name after a restart, so they find these services here and not in arguments.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from ai_services.workflow.gate import Gate
from ai_services.workflow.pipelines import run_pipeline
from ai_services.workflow.retry import CLOSING_POLICY, RetryPolicy
from foramen.kernel.fhir_client import BackendServiceAuth, FhirClient
from foramen.kernel.secret_files import read_or_create_key
from foramen.kernel.settings import Settings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ai_services.models.registry import Manifest
    from ai_services.models.versions import ModelRegistry
    from ai_services.prediction import Prediction
    from ai_services.workflow.dicom_access import DicomAccess

CLIENT_ID = "foramen-worker"
SCOPE = (
    "system/Task.rus system/Patient.rs system/ImagingStudy.crs system/Observation.crus system/DiagnosticReport.crus "
    "system/CarePlan.crus system/RequestGroup.crus system/GuidanceResponse.crus system/Device.crus "
    "system/Provenance.crs system/QuestionnaireResponse.rs system/Condition.rs system/AuditEvent.c"
)
_TIMEOUT_S = 30.0
T = TypeVar("T")


RunPipeline = Callable[[Sequence["Dataset"], "Manifest | None"], "Prediction"]


@dataclass(slots=True)
class Services:
    """Connections and settings of one worker process.

    Parameters
    ----------
    settings : of the process
    worker_id : name of this worker in Task.owner and in DBOS
    loop : event loop of the HTTP clients, running in a thread of its own
    http : client with the worker's token
    auth : fetches that token
    retry, closing : policies of the work and of the last word to the Task
    run_pipeline : series and model version → prediction
    database_url : PostgreSQL with the registry of model versions; None: the pipeline speaks with what it comes with
    gate : passes runs to the models one by one, the most urgent first
    """

    settings: Settings
    worker_id: str
    loop: asyncio.AbstractEventLoop
    http: httpx.AsyncClient
    auth: BackendServiceAuth
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    closing: RetryPolicy = CLOSING_POLICY
    run_pipeline: RunPipeline = run_pipeline
    database_url: str | None = None
    gate: Gate = field(default_factory=Gate)
    _dicom: DicomAccess | None = None
    _models: ModelRegistry | None = None

    @property
    def fhir(self) -> FhirClient:
        """The record."""
        return FhirClient(f"{self.settings.internal_origin}/fhir", self.http)

    @property
    def dicom(self) -> DicomAccess:
        """The pixels; connects on first use."""
        if self._dicom is None:
            from ai_services.workflow.dicom_access import DicomAccess

            self._dicom = DicomAccess(
                f"{self.settings.internal_origin}/dicom-web", lambda: self.wait(self._authorization())
            )
        return self._dicom

    @property
    def models(self) -> ModelRegistry | None:
        """Which model versions there are; imported on first use, as it brings NumPy and ONNX Runtime."""
        if self._models is None and self.database_url is not None:
            from ai_services.models.versions import ModelRegistry

            self._models = ModelRegistry(self.database_url, self.settings.home)
        return self._models

    def configure_models(self) -> None:
        """Set device and threads of the models, before any is opened; harmless to repeat."""
        from ai_services.models.runtime import Execution, configure

        configure(Execution(self.settings.worker_device, self.settings.worker_threads))

    @property
    def spool(self) -> Path:
        """Folder for what is too large for the database."""
        return self.settings.home / "spool"

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the clients' loop and wait for it; for steps, which run in threads."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result()

    async def _authorization(self) -> str:
        """The Authorization header that the auth flow would send (httpx.Auth protocol)."""
        flow = self.auth.async_auth_flow(httpx.Request("GET", self.settings.internal_origin))
        try:
            request = await anext(flow)
            while "Authorization" not in request.headers:
                request = await flow.asend(await self.http.send(request, auth=None))
            return str(request.headers["Authorization"])
        finally:
            await flow.aclose()


class _Holder:
    services: Services | None = None


def configure(services: Services) -> None:
    """Set the services of this process, before any workflow can start."""
    _Holder.services = services


def current() -> Services:
    """Return the services of this process."""
    if _Holder.services is None:
        raise RuntimeError("the worker's services are not configured")
    return _Holder.services


def connect(settings: Settings, worker_id: str) -> Services:
    """Make the services; connects to nothing yet."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="worker-http", daemon=True).start()
    auth = BackendServiceAuth(
        client_id=CLIENT_ID,
        key=read_or_create_key(settings.home, CLIENT_ID, "P-384"),
        scope=SCOPE,
        token_endpoint=f"{settings.internal_origin}/auth/token",
        audience=f"{settings.origin}/auth/token",
    )
    # Our own server is reached directly: a proxy from the environment would only carry tokens outside.
    http = httpx.AsyncClient(auth=auth, timeout=_TIMEOUT_S, trust_env=False)
    return Services(settings=settings, worker_id=worker_id, loop=loop, http=http, auth=auth)
