"""`Patient/{id}/$subject-export`: a copy of one person's data, for the person or on their behalf. PIPL art. 45.

Our own operation (ADR 0028), asynchronous as Bulk Data is; docs/api/subject-export.md
https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import FileResponse, Response

from fhir_server.bulk.download import file_response
from fhir_server.bulk.request import ExportRequest
from fhir_server.interactions.responses import http_date
from fhir_server.jobs.job import JobState
from fhir_server.operations.parameters import parameters_of
from fhir_server.route import Route
from fhir_server.server import Call
from fhir_server.store import reading
from fhir_server.store.bulk import moment
from fhir_server.subject_rights.exporting import ACCESS_LOG, BINARY, HISTORY, KIND, SUMMARY, access_of, exported_types
from foramen.kernel.access_context import ADMINISTRATOR
from foramen.kernel.errors import ForbiddenError, InteropError, InvalidRequestError, NotFoundError, ThrottledError

_NO_FILE = "There is no such file, or it has expired"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Content-Disposition": 'attachment; filename="summary.html"',
    "Cache-Control": "no-store",
}


async def kick_off(call: Call) -> Response:
    """Begin a copy of one person's data."""
    if "respond-async" not in call.request.headers.get("prefer", "").replace(" ", ""):
        raise InvalidRequestError("This needs the header Prefer: respond-async", issue_code="required")
    parameters = await parameters_of(call)
    parameters.check_known(("history",))
    history = parameters.boolean("history")
    _check_reader(call)
    access = await access_of(call.server, call.access.context)
    types = exported_types(access)
    async with call.server.connections.lend() as connection:
        stored = await reading.read(connection, "Patient", call.logical_id)
        await access.learn(connection, stored)
    if stored is None or stored.is_deleted or access.hides(stored):
        raise NotFoundError("Patient not found")
    call.patient = f"Patient/{call.logical_id}"
    url = f"{call.server.own_url}/Patient/{call.logical_id}/$subject-export"
    export = ExportRequest("patient", url, types=types, patients=(call.logical_id,), provenance="Provenance" in types)
    asked = {"export": export.to_json(), "patient": call.logical_id, "history": history, "trace_id": call.trace_id}
    job_id = await call.server.jobs.submit(KIND, asked, owner=call.access.context)
    location = f"{call.server.own_url}/$subject-export-status/{job_id}"
    return Response(status_code=202, headers={"Content-Location": location})


def _check_reader(call: Call) -> None:
    """Let administrators pass, and the person whose record it is (or a relative who signed in for them).

    Raises
    ------
    ForbiddenError
        Somebody else, be it with scopes for the record: a clinician has $everything and $export.
    NotFoundError
        Another person's record.
    """
    context = call.access.context
    if context.has_scope(ADMINISTRATOR):
        return
    if not context.is_patient or context.patient is None or not any(s.context == "patient" for s in context.scopes):
        raise ForbiddenError("This needs the person's own sign-in with patient scopes, or an administrator")
    if context.patient != call.logical_id:
        raise NotFoundError("Patient not found")


async def status(call: Call) -> Response:
    """Tell how far the copy is; when it is complete, what there is to fetch."""
    job = await call.server.jobs.find_own(call.logical_id, KIND, call.access.context)
    call.patient = f"Patient/{job.request['patient']}"
    if job.is_open:
        if call.server.bulk.is_too_often(job.id):
            raise ThrottledError("The status is asked for too often", headers={"Retry-After": "1"})
        return Response(status_code=202, headers={"X-Progress": job.progress or "waiting", "Retry-After": "1"})
    if job.status == "failed":
        raise InteropError("The copy could not be made", issues=job.issues)
    expires = job.expires or datetime.now(UTC)
    body = manifest(call, job, int(expires.timestamp()))
    return Response(orjson.dumps(body), headers={"Expires": http_date(expires)}, media_type="application/json")


def manifest(call: Call, job: JobState, expires: int) -> dict[str, Any]:
    """Return what there is to fetch: a manifest of Bulk Data, and under `extension` what that does not know."""
    lists: dict[str, list[dict[str, Any]]] = {"output": [], HISTORY: [], ACCESS_LOG: [], BINARY: [], SUMMARY: []}
    for place, record in enumerate(job.state["files"]):
        name = call.server.bulk.file_name(job.id, place, expires)
        url = f"{call.server.own_url}/$subject-file/{name}"
        lists[record["kind"]].append({"type": record["type"], "url": url, "count": record["count"]})
    at = moment(job.state["at"]).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    return {
        "transactionTime": at,
        "request": job.request["export"]["url"],
        "requiresAccessToken": True,
        "output": lists["output"] + lists[BINARY],
        "deleted": [],
        "error": [],
        "extension": {
            "summary": lists[SUMMARY][0]["url"],
            "history": lists[HISTORY],
            "accessLog": lists[ACCESS_LOG],
            "accessLogIncluded": job.state["access_log"],
            "historyIncluded": job.request["history"],
            "studies": job.state["studies"],
        },
    }


async def cancel(call: Call) -> Response:
    """End a copy that is being made, or throw it away."""
    job = await call.server.jobs.find_own(call.logical_id, KIND, call.access.context)
    call.patient = f"Patient/{job.request['patient']}"
    await call.server.jobs.cancel(job.id)
    return Response(status_code=202)


async def file(call: Call) -> Response:
    """Send one file of a copy to who asked for it."""
    job_id, place = call.server.bulk.read_name(call.logical_id)
    try:
        job = await call.server.jobs.find_own(job_id, KIND, call.access.context)
    except NotFoundError as exc:
        raise NotFoundError(_NO_FILE) from exc  # Somebody else's file is as absent as one that never was.
    if job.status != "completed" or place >= len(job.state["files"]):
        raise NotFoundError(_NO_FILE)
    restriction = (await access_of(call.server, call.access.context)).restriction
    if restriction is not None:  # The record may have been closed meanwhile.
        async with call.server.connections.lend() as connection:
            stored = await reading.read(connection, "Patient", job.request["patient"])
        if stored is None or restriction.hides(stored):
            raise NotFoundError(_NO_FILE)
    call.patient = f"Patient/{job.request['patient']}"
    record = job.state["files"][place]
    path = call.server.bulk.path_of(job_id, record)
    if not path.is_file():
        raise NotFoundError(_NO_FILE)
    if record["kind"] == SUMMARY:
        return FileResponse(path, media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)
    headers = {"ETag": f'"{record["name"].removesuffix(".ndjson")}"', "Cache-Control": "no-store"}
    return await file_response(call.request, path, record["bytes"], headers)


_DEFINITION = "https://foramen.example/fhir/OperationDefinition/Patient-subject-export"
ROUTES: tuple[Route, ...] = (
    Route("POST", "Patient/{id}/$subject-export", kick_off, "", "operation", definition=_DEFINITION),
    Route("GET", "$subject-export-status/{id}", status, "", "operation"),
    Route("DELETE", "$subject-export-status/{id}", cancel, "", "operation"),
    Route("GET", "$subject-file/{id}", file, "", "operation"),
)
