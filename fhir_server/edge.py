"""The edge of the FHIR API: URL to route, token to access, error to OperationOutcome, call to AuditEvent.

https://hl7.org/fhir/R4/http.html#Status-Codes
"""

from __future__ import annotations

import contextlib
import traceback

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fhir_server.access.institutions import wall_of
from fhir_server.access.policy import Access
from fhir_server.audit.polls import Polls
from fhir_server.audit.record import audit_record
from fhir_server.formats.negotiation import PLAIN, Format, negotiate, render
from fhir_server.routing import PUBLIC, Target, find
from fhir_server.server import Call, Server
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError, InvalidRequestError, UpstreamError
from foramen.kernel.http_edge import authenticate, trace_id_of
from foramen.kernel.log import get_log
from foramen.kernel.outcome import outcome_response, unexpected_error
from foramen.kernel.tokens import TokenVerifier

_MAX_QUERY = 64 * 1024


class Edge:
    """ASGI application of the FHIR API."""

    def __init__(self, server: Server, verifier: TokenVerifier) -> None:
        self._server = server
        self._verifier = verifier
        self._polls = Polls()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            raise RuntimeError("the FHIR API speaks HTTP only")
        request = Request(scope, receive)
        response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        trace_id = trace_id_of(request)
        self._server.audit_indexer.calls += 1
        context: AccessContext | None = None
        call: Call | None = None
        audit_code = "read" if request.method == "GET" else "update"
        wanted = PLAIN
        try:
            parts = self._parts(request)
            if len(parts) == 1 and parts[0] in PUBLIC:
                context, audit_code = _NOBODY, "capabilities"
            else:
                context = authenticate(request, self._verifier)
            target = find(parts, request.method)
            consents = self._server.consents
            consent = await consents.policy(context) if consents is not None and context is not _NOBODY else None
            closed = None if target.route.anonymous else await self._server.restrictions.policy(context)
            wall = wall_of(context, self._server.institutions, self._server.own_url)
            call = self._call(request, target, Access(context, consent, self._server.own_url, closed, wall), trace_id)
            audit_code = call.audit_code
            wanted = negotiate(request)
            if len(request.scope["query_string"]) > _MAX_QUERY:
                raise InvalidRequestError("The query is too long", issue_code="too-long")
            self._check_scope(target, context)
            await self._server.registry.ready(needed=not target.route.anonymous)
            if _may_show_audit(target, request):
                await self._server.audit_indexer.settle()
            response = await target.route.handler(call)
        except Exception as exc:  # noqa: BLE001 - the last line: nothing of the fault may reach the client
            wanted = wanted if call is not None else _wanted(request)
            return await self._refuse(exc, call, context, trace_id, audit_code, wanted)
        if not target.route.anonymous:
            response = await self._audited(response, call, context, trace_id)
        if wanted is not PLAIN:
            response = render(response, wanted)
        return _without_body(response) if request.method == "HEAD" else response

    async def _audited(self, response: Response, call: Call, context: AccessContext | None, trace_id: str) -> Response:
        if call.audited and not call.shown:  # What a transaction also read is told by an event of its own.
            return response
        if response.status_code == 200 and self._polls.is_told(call):
            return response
        try:
            await self._record(call.audit_code, response.status_code, call, context, trace_id)
        except UpstreamError as exc:
            # What cannot be audited is not shown.
            return outcome_response(exc)
        if response.status_code == 200:
            self._polls.told(call)
        return response

    @staticmethod
    def _parts(request: Request) -> list[str]:
        path: str = request.scope["path"]
        parts = [part for part in path.split("/") if part]
        return parts[1:] if parts[:1] == ["fhir"] else parts  # Mounted under /fhir, or alone on an origin.

    def _call(self, request: Request, target: Target, access: Access, trace_id: str) -> Call:
        return Call(
            self._server,
            request,
            access,
            trace_id,
            target.route.action,
            target.route.audit,
            resource_type=target.resource_type,
            logical_id=target.logical_id,
            version_id=target.version_id,
            entity=target.entity,
            operation=target.route.operation if target.route.audit == "operation" else None,
        )

    @staticmethod
    def _check_scope(target: Target, context: AccessContext) -> None:
        if target.route.administrator:
            context.require_administrator()
        if target.route.action and target.resource_type:
            context.reach(target.resource_type, target.route.action)

    async def _refuse(
        self,
        exc: Exception,
        call: Call | None,
        context: AccessContext | None,
        trace_id: str,
        audit_code: str,
        wanted: Format,
    ) -> Response:
        if isinstance(exc, InteropError):
            error = exc
        else:
            # The frames without the message: that may quote a value of the request.
            frames = " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_tb(exc.__traceback__)))
            get_log().error("unexpected error", exception=f"{type(exc).__name__} {frames}", trace_id=trace_id)
            error = unexpected_error(trace_id)
        # When the database is away the event is kept and written later; the refusal itself can be told now.
        with contextlib.suppress(UpstreamError):
            await self._record(audit_code, error.status, call, context, trace_id, waiting=error.status < 500)
        response = outcome_response(error)
        return response if wanted is PLAIN else render(response, wanted)

    async def _record(
        self,
        audit_code: str,
        status: int,
        call: Call | None,
        context: AccessContext | None,
        trace_id: str,
        *,
        waiting: bool = True,
    ) -> None:
        event = audit_record(
            interaction=audit_code,
            status=status,
            trace_id=trace_id,
            context=context,
            entity=call.entity if call is not None and "/" in (call.entity or "") else None,
            patient=call.patient if call is not None else None,
            operation=call.operation if call is not None else None,
            shown=call.shown if call is not None and status < 400 else None,
        )
        if waiting:
            await self._server.audit.record(event)
        else:
            self._server.audit.remember(event)


_NOBODY = AccessContext("anonymous", "", ())


def _may_show_audit(target: Target, request: Request) -> bool:
    """Whether the answer could hold AuditEvents: then those still to be indexed come first."""
    if target.route.anonymous or not target.route.shows_audit or target.route.method in ("PUT", "PATCH", "DELETE"):
        return False
    if request.method == "POST":
        return bool(target.route.operation) or target.route.path.endswith("_search")
    path, query = request.scope["path"], request.scope["query_string"]
    named = "AuditEvent" in path or b"AuditEvent" in query or path.endswith("/*")
    return not target.resource_type or bool(target.route.operation) or named


def _wanted(request: Request) -> Format:
    """Return the format of a refusal that came before the format was asked for."""
    try:
        return negotiate(request)
    except InteropError:
        return PLAIN


def _without_body(response: Response) -> Response:
    """Answer HEAD: the headers of GET, its length included (RFC 9110 §9.3.2)."""
    return Response(status_code=response.status_code, headers=dict(response.headers))
