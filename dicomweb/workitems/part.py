"""The Worklist Service as a part of the gateway: its pieces built and run, and its WebSocket behind tokens and audit.

DICOM PS3.18 §11, §8.10.
"""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from dicomweb.audit import AuditTrail
from dicomweb.consents.closed_workitems import OpenWorkitems
from dicomweb.database import Database
from dicomweb.workitems.channels import Channels
from dicomweb.workitems.connection import refuse, serve
from dicomweb.workitems.service import Worklist
from dicomweb.workitems.subscriptions import Subscriptions
from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event
from foramen.kernel.errors import InteropError
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import TokenVerifier, bearer_token

SOCKET_PATHS = ("/ws/subscribers/{aetitle}", "/subscribers/{aetitle}")
"""Where a notification connection is opened: as `Content-Location` of a subscription says, and as UPS-RS first said."""


class WorklistPart:
    """What `DicomWebService` holds of the Worklist Service."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        fhir: FhirClient,
        audit: AuditTrail,
        verifier: TokenVerifier,
        open_workitems: OpenWorkitems,
    ) -> None:
        self._verifier, self._audit = verifier, audit
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(60.0, connect=3.0), trust_env=False)
        subscriptions = Subscriptions(database)
        self.channels = Channels(subscriptions, fhir, settings.dicom_web_base)
        self._worklist = Worklist(settings, self._http, subscriptions, self.channels, open_workitems)

    async def close(self) -> None:
        """Close the connections to the record."""
        await self._http.aclose()

    async def answer(self, name: str, request: Request, context: AccessContext, trace_id: str) -> Response:
        """Do one transaction of `Worklist`."""
        return await self._worklist.answer(name, request, context, trace_id)

    async def connect(self, socket: WebSocket) -> None:
        """Open a notification connection: token → audit → handshake."""
        trace_id, context = new_trace_id(), None
        try:
            context = self._verifier.verify(bearer_token(socket.headers.get("authorization")))
            context.reach("Task", "r")
            await self._record(context, 101, trace_id)
        except InteropError as error:
            await self._record(context, error.status, trace_id)
            await refuse(socket, error)
            return
        await serve(socket, context, trace_id, self._verifier, self._worklist, self.channels)

    async def _record(self, context: AccessContext | None, status: int, trace_id: str) -> None:
        await self._audit.record(
            audit_event(
                interaction="open-notifications",
                source="dicomweb",
                status=200 if status == 101 else status,
                recorded=datetime.now(UTC),
                trace_id=trace_id,
                context=context,
            )
        )
