"""`Prefer: respond-async` for searches and transactions: 202 with a status URL, the answer in a Bundle when it is done.

https://hl7.org/fhir/R4/async.html (the kick-off and the status), https://hl7.org/fhir/R5/async-bundle.html (R4 has no
form for an answer that is no bulk data). A transaction commits together with its answer, so that a job that was killed
and begun again writes nothing twice. A batch has no such commit: it is answered at once, as RFC 7240 §2 allows, and the
answer does not name the preference (`Preference-Applied`, §3).
"""

from __future__ import annotations

import base64
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from fhir_server.access.institutions import wall_of
from fhir_server.access.policy import Access
from fhir_server.audit.record import audit_record
from fhir_server.interactions.body import json_body, raw_body
from fhir_server.interactions.bundles import bundle, response_entry
from fhir_server.interactions.put_off_answers import check_institutions
from fhir_server.interactions.responses import MEDIA_TYPE, http_date
from fhir_server.jobs.job import Job
from fhir_server.route import Handler, Route
from fhir_server.server import Call, Server
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.http_edge import header
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.outcome import FHIR_JSON, operation_outcome

KIND = "async"
_FORM = "application/x-www-form-urlencoded"


class _BundleType(msgspec.Struct):
    type: str = ""


def asynchronous(handler: Handler) -> Handler:
    """Return the handler that answers at once, and later where the client prefers that."""

    async def answer(call: Call) -> Response:
        prefer = header(call.request, b"prefer")
        if prefer is None or "respond-async" not in prefer:
            return await handler(call)
        return await _kick_off(call, handler, prefer)

    return answer


async def _kick_off(call: Call, handler: Handler, prefer: str) -> Response:
    request = call.request
    body, content_type = b"", request.headers.get("content-type", "")
    if request.method == "POST":
        is_form = content_type.partition(";")[0].strip().lower() == _FORM
        body = await raw_body(call) if is_form else await json_body(call)
        content_type = content_type if is_form else FHIR_JSON
        if not is_form and not _is_transaction(body):
            # The entries of a batch commit one by one: a job begun again would write some of them twice.
            call.request = _request(request.scope["path"], "POST", "", _headers(request, FHIR_JSON), body)
            return await handler(call)
    asked = {
        "method": request.method,
        "path": request.scope["path"],
        "query": request.scope["query_string"].decode("latin-1"),
        "prefer": ",".join(part for part in prefer.split(",") if "respond-async" not in part),
        "content_type": content_type,
        "body": base64.b64encode(body).decode("ascii"),
        "trace_id": call.trace_id,
    }
    job_id = await call.server.jobs.submit(KIND, asked, owner=call.access.context)
    headers = {
        "Content-Location": f"{call.server.own_url}/$async-status/{job_id}",
        "Preference-Applied": "respond-async",
    }
    return Response(status_code=202, headers=headers)


def _is_transaction(body: bytes) -> bool:
    try:
        return msgspec.json.decode(body, type=_BundleType).type == "transaction"
    except msgspec.MsgspecError:
        return False  # The handler says what is wrong with it.


def _headers(request: Request, content_type: str) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in request.scope["headers"] if not name.startswith(b"content-")]
    return [*kept, (b"content-type", content_type.encode("latin-1"))]


def _request(path: str, method: str, query: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Request:
    """Return a request whose body is at hand."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode("latin-1"),
        "headers": headers,
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(scope, receive)


def register(server: Server) -> None:
    """Let the jobs of this process carry out what was put off."""
    server.jobs.register(KIND, partial(_run, server))


async def _run(server: Server, job: Job) -> None:
    from fhir_server.routing import find

    if "status" in job.state:
        return  # Everything was committed, only the end of the job was not written down.
    asked = job.request
    headers = [
        (b"prefer", asked["prefer"].encode("latin-1")),
        (b"content-type", asked["content_type"].encode("latin-1")),
    ]
    request = _request(asked["path"], asked["method"], asked["query"], headers, base64.b64decode(asked["body"]))
    target = find([part for part in asked["path"].split("/")[2:] if part], asked["method"])
    consent = await server.consents.policy(job.owner) if server.consents is not None else None
    call = Call(
        server,
        request,
        Access(
            job.owner,
            consent,
            server.own_url,
            await server.restrictions.policy(job.owner),
            wall_of(job.owner, server.institutions, server.own_url),
        ),
        asked.get("trace_id") or new_trace_id(),
        target.route.action,
        target.route.audit,
        resource_type=target.resource_type,
        logical_id=target.logical_id,
        entity=target.entity,
    )
    call.committing = partial(_commit, job)
    await server.registry.ready(needed=True)
    await server.audit_indexer.settle()
    try:
        response = await target.route.handler(call)
    except UpstreamError:
        raise
    except InteropError as exc:
        await job.save(_state(exc.status, orjson.dumps(operation_outcome(exc.issues))))
        return
    await _tell_audit(server, call, job.owner, response.status_code)
    if "status" not in job.state:
        await job.save(_state(response.status_code, bytes(response.body)))


async def _tell_audit(server: Server, call: Call, owner: AccessContext, status: int) -> None:
    """Record what the answer shows before it can be fetched; the event of the 202 could not know it."""
    if call.shown:
        record = audit_record(
            interaction=call.audit_code,
            status=status,
            trace_id=call.trace_id,
            context=owner,
            entity=call.entity,
            patient=call.patient,
            shown=call.shown,
        )
        await server.audit.record(record)


async def _commit(job: Job, connection: Any, content: bytes) -> None:
    """Write the answer inside the transaction that it tells of."""
    state = _state(200, content)
    await job.save(state, connection=connection)
    job.state = state


def _state(status: int, content: bytes) -> dict[str, Any]:
    return {"status": status, "content": content.decode()}


async def status(call: Call) -> Response:
    """Tell that it goes on, or give the answer: a batch-response Bundle with one entry."""
    job = await call.server.jobs.find_own(call.logical_id, KIND, call.access.context)
    if job.is_open:
        return Response(status_code=202, headers={"X-Progress": job.progress or job.status, "Retry-After": "1"})
    if job.status == "failed":
        raise InteropError("The request could not be carried out", issues=job.issues)
    code = HTTPStatus(job.state["status"])
    content = job.state["content"].encode()
    said = f"{code.value} {code.phrase}"
    if code < HTTPStatus.BAD_REQUEST:
        await check_institutions(call, content)
        entry = response_entry(status=said, content=content)
    else:
        entry = response_entry(status=said, outcome=content)
    headers = {} if job.expires is None else {"Expires": http_date(job.expires)}
    return Response(bundle("batch-response", [entry]), headers=headers, media_type=MEDIA_TYPE)


async def cancel(call: Call) -> Response:
    """End a job, or throw its answer away."""
    job = await call.server.jobs.find_own(call.logical_id, KIND, call.access.context)
    await call.server.jobs.cancel(job.id)
    return Response(status_code=202)


ROUTES: tuple[Route, ...] = (
    Route("GET", "$async-status/{id}", status, "", "operation"),
    Route("DELETE", "$async-status/{id}", cancel, "", "operation"),
)
