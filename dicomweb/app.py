"""Composition root of the gateway: the only place where its parts are built. Mounted at /dicom-web.

DICOM PS3.18 (DICOMweb); stages 1, 3 and 7 of the main job.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from dicomweb.archive import Archive
from dicomweb.audit import AuditTrail
from dicomweb.audit_windows import PATIENT, AuditWindows
from dicomweb.background import keep_running
from dicomweb.conformance.capabilities import capabilities
from dicomweb.conformance.page import conformance
from dicomweb.consents.closed_records import ClosedRecords
from dicomweb.consents.closed_workitems import OpenWorkitems
from dicomweb.consents.released_output import ReleasedOutput
from dicomweb.database import Database
from dicomweb.index.rebuilding import rebuild
from dicomweb.institutions import Institutions
from dicomweb.intake import Intake
from dicomweb.lifecycle.unpacking import unpacking_of
from dicomweb.metadata import Metadata
from dicomweb.migrations import migrate
from dicomweb.qido import Qido
from dicomweb.reconciliation.page import drift_page
from dicomweb.reconciliation.study_truth import StudyTruth
from dicomweb.reconciliation.watch import Watch
from dicomweb.rejection.handlers import RejectionHandlers
from dicomweb.rejection.looking import looking_at_rejected
from dicomweb.rejection.part import Rejections
from dicomweb.rejection.rejected_workitems import WithoutRejected
from dicomweb.retrieve.cross_origin import CrossOrigin
from dicomweb.retrieve.frames_first import FRAMES_PATH, FramesFirst
from dicomweb.retrieve.ready_frames import ReadyFrames
from dicomweb.retrieve.wado_uri import name_object
from dicomweb.routes import ROUTES, DicomWebRoute
from dicomweb.search.labels import Labels
from dicomweb.series_metadata import SeriesMetadata
from dicomweb.stow import Stow
from dicomweb.study_index import StudyIndex
from dicomweb.visibility import visibility
from dicomweb.wado import Wado
from dicomweb.workitems.handlers import WorklistHandlers
from dicomweb.workitems.part import SOCKET_PATHS, WorklistPart
from foramen.kernel.access_context import AccessContext, Reach
from foramen.kernel.audit_event import audit_event
from foramen.kernel.errors import (
    ForbiddenError,
    InteropError,
    InvalidRequestError,
    NotAuthenticatedError,
    NotFoundError,
    NotSupportedError,
)
from foramen.kernel.fhir_client import BackendServiceAuth, FhirClient
from foramen.kernel.http_edge import authenticate, header, read_body, trace_id_of
from foramen.kernel.log import get_log
from foramen.kernel.outcome import outcome_response, unexpected_error
from foramen.kernel.secret_files import read_or_create_key, read_or_create_secret
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import TokenVerifier, bearer_token

CLIENT_ID = "foramen-intake"
SCOPE = (
    "system/Patient.rs system/ImagingStudy.crus system/Task.crus system/Endpoint.crus system/AuditEvent.c "
    "system/DiagnosticReport.rs system/ServiceRequest.rs foramen/gateway"
)
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_NOTICE_BYTES = 4096

Handler = Callable[[Request, AccessContext, str], Awaitable[Response]]


def is_uid(text: str) -> bool:
    """Whether a text is a UID as PS3.5 §9.1 writes it (leading zeros are tolerated: vendors send them)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def fhir_client(settings: Settings) -> FhirClient:
    """Our own way to the record: HTTP with a backend-services token, as for any outside system."""
    key = read_or_create_key(settings.home, CLIENT_ID, "P-384")
    endpoint, audience = f"{settings.internal_origin}/auth/token", f"{settings.origin}/auth/token"
    auth = BackendServiceAuth(CLIENT_ID, key, SCOPE, endpoint, audience)
    http = httpx.AsyncClient(auth=auth, timeout=httpx.Timeout(60.0, connect=3.0), trust_env=False)
    return FhirClient(f"{settings.internal_origin}/fhir", http)


class DicomWebService(WorklistHandlers, RejectionHandlers):
    """QIDO-RS, WADO-RS, STOW-RS and the intake, behind tokens and audit."""

    def __init__(
        self, settings: Settings, database_url: str, verifier: TokenVerifier, *, fhir: FhirClient | None = None
    ) -> None:
        self._settings, self._database_url, self._verifier = settings, database_url, verifier
        self._fhir_given = fhir
        self._tasks: list[asyncio.Task[None]] = []
        frames = next(item for item in ROUTES if item.method == "GET" and item.path == FRAMES_PATH)
        routed = FramesFirst(
            Starlette(
                routes=[
                    *(Route(item.path, self._endpoint(item), methods=[item.method]) for item in ROUTES),
                    Route("/-/study-arrived", self._study_arrived, methods=["POST"]),
                    # Like a capability statement these tell of the server and of nobody's data: they ask for no token.
                    Route("/", self._capabilities, methods=["GET", "OPTIONS"]),
                    Route("/conformance", self._conformance, methods=["GET"]),
                    *(WebSocketRoute(path, self._open_notifications) for path in SOCKET_PATHS),
                ],
                exception_handlers={HTTPException: _no_such_route},
            ),
            self._endpoint(frames),
        )
        self._ready_frames = ReadyFrames(
            CrossOrigin(routed), lambda token: self._verifier.verify(token), settings.dicom_web_base
        )
        self.app: ASGIApp = self._ready_frames

    async def start(self) -> None:
        """Migrate, build the parts and start the background work."""
        settings = self._settings
        await asyncio.to_thread(migrate, self._database_url)
        self._database = Database(self._database_url)
        password = read_or_create_secret(settings.home, "orthanc")
        self._archive = Archive(settings.archive_url, settings.orthanc_username, password)
        self._archive.unpacking = unpacking_of(settings, self._database)
        self._fhir = self._fhir_given or fhir_client(settings)
        wall = settings.institutions
        self._institutions = Institutions(self._database, self._fhir, wall, settings.fhir_base)
        self._closed_records = ClosedRecords(self._database, self._fhir)
        self._released_output = ReleasedOutput(self._fhir)
        seen = visibility(self._institutions, self._closed_records, self._released_output)
        self._index, self._seen = StudyIndex(self._database, seen), seen
        await rebuild(self._database)
        kept = SeriesMetadata(self._database, settings.dicom_web_base)
        self._metadata_resources = Metadata(self._index, kept)
        truth = StudyTruth(
            *(self._database, self._index, self._archive, self._fhir),
            *(settings.default_patient_id_issuer, settings.fhir_base),
            forget=lambda name: self._wado.files.forget(name),
            storage=(settings.orthanc_storage or settings.home / "orthanc" / "storage").absolute(),
        )
        self.intake = Intake(self._database, self._index, self._archive, truth)
        self.watch = Watch(
            *(self._database, self._archive, self._fhir, self.intake.wake),
            every_s=settings.reconcile_every_s,
        )
        self._audit = AuditTrail(self._database, self._fhir)
        self._audit_windows = AuditWindows(self._audit)
        self._searched = Database(self._database_url, planned_anew=True)
        self._qido = Qido(settings, self._searched, seen, Labels(self._fhir))
        self._wado = Wado(settings, self._archive, self._index, self._database)
        self._ready_frames.ready_by(self._wado.plans, self._wado.files, self._audit_windows)
        self._rejections = Rejections(settings, self._database_url, self._database, seen, self._archive)
        self._stow = Stow(settings, self._archive, self._index, self._database, self._rejections)
        opened = OpenWorkitems(self._database, WithoutRejected(self._closed_records))
        self._worklist = WorklistPart(settings, self._database, self._fhir, self._audit, self._verifier, opened)
        self._tasks = [
            asyncio.create_task(keep_running("workitems", self._worklist.channels.run)),
            asyncio.create_task(keep_running("intake", self.intake.run)),
            asyncio.create_task(keep_running("reconciliation", self.watch.run)),
            asyncio.create_task(keep_running("audit", self._audit.run)),
            asyncio.create_task(keep_running("accesses", self._audit.accesses.run)),
            asyncio.create_task(keep_running("metadata", kept.run)),
            asyncio.create_task(keep_running("files", self._wado.run)),
            asyncio.create_task(keep_running("rejection", self._rejections.carrying_out.run)),
        ]

    async def stop(self) -> None:
        """Stop the background work; what is undone lies in the database."""
        pending, rounds = set(self._tasks), 10
        while pending and rounds:
            # More than once: before Python 3.12 a library's `wait_for` can swallow a cancellation.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=1.0)
            rounds -= 1
        self._tasks = []
        await self._institutions.stop()
        await self._closed_records.stop()
        await self._audit_windows.close()
        await self._worklist.close()
        await self._wado.close()
        await self._archive.close()
        if self._fhir_given is None:
            await self._fhir.__aexit__()
        await self._searched.close()
        await self._database.close()

    async def ready(self) -> bool:
        """Whether database and archive answer."""
        try:
            async with self._database.connection() as connection:
                await connection.fetchval("SELECT 1")
        except InteropError:
            return False
        return await self._archive.is_up()

    def _endpoint(self, route: DicomWebRoute) -> Callable[[Request], Awaitable[Response]]:
        """Token → handler → audit → answer; the audit is durable before the client hears anything."""
        handler: Handler = getattr(self, f"_{route.handler}")

        async def endpoint(request: Request) -> Response:
            trace_id = trace_id_of(request)
            context: AccessContext | None = None
            try:
                context = authenticate(request, self._verifier)
                _check_uids(request)
                context = looking_at_rejected(request, context)
                response = await handler(request, context, trace_id)
            except InteropError as error:
                response = outcome_response(error)
            except Exception:  # noqa: BLE001  the edge: the client gets a fixed text, the log the rest
                get_log().exception("unexpected error", trace_id=trace_id, route=route.path, method=route.method)
                response = outcome_response(unexpected_error(trace_id))
            try:
                await self._record(route, request, context, response.status_code, trace_id)
            except InteropError as error:
                return outcome_response(error)
            return response

        return endpoint

    async def _record(
        self, route: DicomWebRoute, request: Request, context: AccessContext | None, status: int, trace_id: str
    ) -> None:
        study, instance = (request.path_params.get(name) for name in ("study", "instance"))
        known = study if study is not None and is_uid(study) else None
        recorded = datetime.now(UTC)

        async def event() -> dict[str, Any]:
            patient = request.scope.get(PATIENT)
            if patient is None and known and status < 400:
                patient = await self._index.patient_of(known)
            return audit_event(
                interaction=route.interaction,
                source="dicomweb",
                status=status,
                recorded=recorded,
                trace_id=trace_id,
                context=context,
                entity=f"urn:oid:{known}" if known else None,
                patient=patient,
            )

        of_one_image = known and instance and route.method == "GET" and status < 400
        if of_one_image and context is not None and header(request, b"traceparent") is None:
            await self._audit_windows.record(context, f"urn:oid:{known}", route.interaction, str(instance), event)
        else:
            await self._audit.record(await event())

    async def _capabilities(self, request: Request) -> Response:
        """GET and OPTIONS /: what this server does (PS3.18 §8.9)."""
        try:
            return capabilities(request, self._settings.dicom_web_base)
        except InteropError as error:
            return outcome_response(error)

    async def _conformance(self, request: Request) -> Response:
        """GET /conformance: the same for people."""
        try:
            return conformance(request, self._settings)
        except InteropError as error:
            return outcome_response(error)

    async def _open_notifications(self, socket: WebSocket) -> None:
        await self._worklist.connect(socket)

    async def _search(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._qido.search(request, context)

    async def _store(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        response = await self._stow.store(request, context, trace_id)
        self.intake.wake()
        return response

    async def _retrieve(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._wado.instances(request, context)

    async def _metadata(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._metadata_resources.retrieve(request, context)

    async def _frames(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._wado.frames(request, context)

    async def _bulk_data(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._wado.bulk_data(request, context)

    async def _all_bulk_data(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._wado.all_bulk_data(request, context)

    async def _wado_uri(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        name_object(request)
        _check_uids(request)
        return await self._wado.uri(request, context)

    async def _rendered(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await self._wado.rendered(request, context)

    async def _drift(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        return await drift_page(request, context, self._database)

    async def _register(self, request: Request, context: AccessContext, trace_id: str) -> Response:
        """POST /studies/{study}/register: try again to find the patient of a study that waits on hold."""
        if context.reach("Task", "u") is not Reach.EVERYTHING:
            raise ForbiddenError("A patient scope cannot register studies")
        study = request.path_params["study"]
        await self._index.require_study(context, study)
        await self._index.arrived(study, trace_id)
        self.intake.wake()
        return Response(
            orjson.dumps({"studyInstanceUID": study, "traceId": trace_id}), 202, media_type="application/json"
        )

    async def _study_arrived(self, request: Request) -> Response:
        """POST /-/study-arrived from the notify plug-in; 202 means the arrival is durable."""
        try:
            secret = read_or_create_secret(self._settings.home, "notify")
            given = bearer_token(request.headers.get("authorization"))
            if not hmac.compare_digest(given.encode(), secret.encode()):
                raise NotAuthenticatedError("Not the notify plug-in's secret")
            study, trace_id = _notice(await read_body(request, _NOTICE_BYTES))
            await self._index.arrived(study, trace_id)
            self._wado.arrived(study)
        except InteropError as error:
            return outcome_response(error)
        self.intake.wake()
        return Response(status_code=202)


def _notice(body: bytes) -> tuple[str, str]:
    try:
        content = orjson.loads(body)
        study, trace_id = str(content["studyInstanceUID"]), str(content["traceId"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise InvalidRequestError("studyInstanceUID and traceId are required", issue_code="required") from exc
    if not is_uid(study) or not _TRACE_ID.fullmatch(trace_id):
        raise InvalidRequestError("studyInstanceUID or traceId is malformed", issue_code="value")
    return study, trace_id


def _check_uids(request: Request) -> None:
    for name in ("study", "series", "instance"):
        if name in request.path_params and not is_uid(request.path_params[name]):
            raise InvalidRequestError(f"The {name} in the URL is not a UID", issue_code="value")


async def _no_such_route(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        return outcome_response(NotSupportedError("This method is not offered here"))
    return outcome_response(NotFoundError("No such resource"))
