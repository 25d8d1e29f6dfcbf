"""A call that the server makes to itself, on behalf of somebody: inside a job, with their access. No HTTP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Message

from fhir_server.access.institutions import wall_of
from fhir_server.access.policy import Access
from fhir_server.server import Call, Server
from foramen.kernel.access_context import AccessContext


async def internal_call(server: Server, context: AccessContext, path: str, query: str, trace_id: str) -> Call:
    """Return a GET of this path as a call.

    Parameters
    ----------
    path : as the client would send it, e.g. ``/fhir/Patient/1/$access-log``

    Raises
    ------
    InteropError
        There is nothing at this path.
    """
    from fhir_server.routing import find

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode("latin-1"), "headers": []}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    target = find([part for part in path.split("/")[2:] if part], "GET")
    consent = await server.consents.policy(context) if server.consents is not None else None
    closed = await server.restrictions.policy(context)
    access = Access(context, consent, server.own_url, closed, wall_of(context, server.institutions, server.own_url))
    await server.registry.ready(needed=True)
    await server.audit_indexer.settle()
    return Call(
        server,
        Request(scope, receive),
        access,
        trace_id,
        target.route.action,
        target.route.audit,
        resource_type=target.resource_type,
        logical_id=target.logical_id,
        entity=target.entity,
    )
