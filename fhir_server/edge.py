"""The edge of the FHIR API: URL to route, token to access, error to OperationOutcome, call to AuditEvent.

https://hl7.org/fhir/R4/http.html#Status-Codes
"""

from __future__ import annotations

import contextlib
import traceback

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fhir_server.access.policy import Access
from fhir_server.audit.record import audit_change
from fhir_server.interactions.operations import check_type
from fhir_server.interactions.responses import check_accept
from fhir_server.model.references import LOGICAL_ID
from fhir_server.routes import ROUTES, Route
from fhir_server.server import Call, Server
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError, InvalidRequestError, NotFoundError, NotSupportedError, UpstreamError
from foramen.kernel.http_edge import authenticate, trace_id_of
from foramen.kernel.log import get_log
from foramen.kernel.outcome import outcome_response, unexpected_error
from foramen.kernel.tokens import TokenVerifier

_MAX_QUERY = 64 * 1024


def _shape(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


_TABLE: dict[tuple[str, ...], dict[str, Route]] = {}
for _route in ROUTES:
    _TABLE.setdefault(_shape(_route.path), {})[_route.method] = _route


class Edge:
    """ASGI application of the FHIR API."""

    def __init__(self, server: Server, verifier: TokenVerifier) -> None:
        self._server = server
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            raise RuntimeError("the FHIR API speaks HTTP only")
        request = Request(scope, receive)
        response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        trace_id = trace_id_of(request)
        context: AccessContext | None = None
        call: Call | None = None
        audit_code = "read" if request.method == "GET" else "update"
        try:
            parts = self._parts(request)
            if parts == ["metadata"] and request.method == "GET":
                audit_code = "capabilities"
                check_accept(request)
                call = Call(self._server, request, _NOBODY, trace_id, "", audit_code)
                return await _TABLE[("metadata",)]["GET"].handler(call)
            context = authenticate(request, self._verifier)
            call = self._call(request, parts, context, trace_id)
            audit_code = call.audit_code
            check_accept(request)
            if len(request.scope["query_string"]) > _MAX_QUERY:
                raise InvalidRequestError("The query is too long", issue_code="too-long")
            response = await _TABLE[self._shape_of(parts)][request.method].handler(call)
        except Exception as exc:  # noqa: BLE001 - the last line: nothing of the fault may reach the client
            return await self._refuse(exc, call, context, trace_id, audit_code)
        return await self._audited(response, call, context, trace_id)

    async def _audited(self, response: Response, call: Call, context: AccessContext | None, trace_id: str) -> Response:
        if call.audited:
            return response
        try:
            await self._record(call.audit_code, response.status_code, call, context, trace_id)
        except UpstreamError as exc:
            # What cannot be audited is not shown.
            return outcome_response(exc)
        return response

    def _parts(self, request: Request) -> list[str]:
        path: str = request.scope["path"]
        root: str = request.scope.get("root_path", "")
        path = path[len(root) :] if root and path.startswith(root) else path
        if path == "/fhir":  # Mounted for the base URL itself, without the slash.
            return []
        return [part for part in path.split("/") if part]

    @staticmethod
    def _shape_of(parts: list[str]) -> tuple[str, ...]:
        if not parts or parts[0] in ("metadata", "_history"):
            return tuple(parts)
        shape = ["{type}", *parts[1:]]
        if len(shape) > 1 and not parts[1].startswith("_"):
            shape[1] = "{id}"
        if len(shape) == 4 and parts[2] == "_history":
            shape[3] = "{version}"
        return tuple(shape)

    def _call(self, request: Request, parts: list[str], context: AccessContext, trace_id: str) -> Call:
        shape = self._shape_of(parts)
        if shape and shape[0] == "{type}":
            check_type(parts[0])
        methods = _TABLE.get(shape)
        if methods is None:
            raise NotFoundError("There is nothing at this URL")
        route = methods.get(request.method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise NotSupportedError(f"Only {allowed} can be used here", headers={"Allow": allowed})
        call = Call(self._server, request, Access(context), trace_id, route.action, route.audit)
        if shape and shape[0] == "{type}":
            call.resource_type = call.entity = parts[0]
            if len(parts) > 1 and shape[1] == "{id}":
                call.logical_id = parts[1]
                if LOGICAL_ID.fullmatch(parts[1]):
                    call.entity = f"{parts[0]}/{parts[1]}"
            if len(parts) == 4:
                call.version_id = parts[3]
            if route.action:
                try:
                    context.reach(parts[0], route.action)
                except InteropError as exc:
                    exc.call = call  # type: ignore[attr-defined]
                    raise
        return call

    async def _refuse(
        self,
        exc: Exception,
        call: Call | None,
        context: AccessContext | None,
        trace_id: str,
        audit_code: str,
    ) -> Response:
        if isinstance(exc, InteropError):
            error = exc
        else:
            # The frames without the message: that may quote a value of the request.
            frames = " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_tb(exc.__traceback__)))
            get_log().error("unexpected error", exception=f"{type(exc).__name__} {frames}", trace_id=trace_id)
            error = unexpected_error(trace_id)
        call = call or getattr(exc, "call", None)
        if call is not None:
            audit_code = call.audit_code
        # When the database is away the event is kept and written later; the refusal itself can be told now.
        with contextlib.suppress(UpstreamError):
            await self._record(audit_code, error.status, call, context, trace_id, waiting=error.status < 500)
        return outcome_response(error)

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
        event = audit_change(
            interaction=audit_code,
            status=status,
            trace_id=trace_id,
            context=context,
            own_url=self._server.own_url,
            entity=call.entity if call is not None and "/" in (call.entity or "") else None,
            patient=call.patient if call is not None else None,
        )
        if waiting:
            await self._server.audit.record(event)
        else:
            self._server.audit.remember(event)


_NOBODY = Access(AccessContext("anonymous", "", ()))
