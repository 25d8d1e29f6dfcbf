"""`$export` (system, Patient, Group), its status and its files.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html, https://hl7.org/fhir/R4/async.html
"""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from starlette.responses import Response

from fhir_server.bulk.download import file_response
from fhir_server.bulk.exported_patients import patients_of
from fhir_server.bulk.manifests import import_manifest, manifest
from fhir_server.bulk.plan import members_of, plan
from fhir_server.bulk.request import ExportRequest, read_request
from fhir_server.bulk.resolved import resolved
from fhir_server.bulk.service import EXPORT, IMPORT, Bulk
from fhir_server.interactions.read import visible
from fhir_server.interactions.responses import http_date
from fhir_server.jobs.job import JobState
from fhir_server.operations.parameters import parameters_of
from fhir_server.route import Route
from fhir_server.search.conditions import Keys, Selection
from fhir_server.search.hashing import resource_key
from fhir_server.server import Call
from fhir_server.store import reading, searching
from foramen.kernel.errors import InteropError, InvalidRequestError, NotFoundError, ThrottledError

_KINDS = (EXPORT, IMPORT)
_MOST_GROUPS = 1000
_LONGEST_PAUSE_S = 60


async def export_system(call: Call) -> Response:
    """Kick off an export of everything the token reaches."""
    return await _kick_off(call, "system")


async def export_patients(call: Call) -> Response:
    """Kick off an export of the records of all patients."""
    return await _kick_off(call, "patient")


async def export_group(call: Call) -> Response:
    """Kick off an export of the records of a Group's patients."""
    return await _kick_off(call, "group")


async def _kick_off(call: Call, level: str) -> Response:
    prefer = call.request.headers.get("prefer", "").replace(" ", "")
    if "respond-async" not in prefer:
        raise InvalidRequestError("An export needs the header Prefer: respond-async", issue_code="required")
    query = call.request.scope["query_string"].decode("latin-1")
    path = {"system": "", "patient": "Patient/", "group": f"Group/{call.logical_id}/"}[level]
    url = f"{call.server.own_url}/{path}$export" + (f"?{query}" if query else "")
    lenient = "handling=lenient" in prefer
    request = read_request(await parameters_of(call), level=level, url=url, group=call.logical_id, lenient=lenient)
    if request.project:
        _bulk(call).project_key(request.project)
    members = await _members(call, request)
    # What cannot be done is refused now, not in the job.
    wanted = plan(request, call.access, call.parser(), members)
    async with call.server.connections.lend() as connection:
        await resolved(connection, call.server, wanted, arranged=False)
    job_id = await call.server.jobs.submit(
        EXPORT, {"export": request.to_json(), "members": members}, owner=call.access.context
    )
    return Response(status_code=202, headers={"Content-Location": f"{call.server.own_url}/$bulk-status/{job_id}"})


async def _members(call: Call, request: ExportRequest) -> list[str] | None:
    """Ids of the patients whose records are meant, or None for all."""
    limit = call.server.limits.export_members
    async with call.server.connections.lend() as connection:
        group = await _group(call, connection, request.group) if request.level == "group" else None
        if request.patients is None:
            found = group
        else:
            found = list(request.patients)
            outside = group is not None and not set(found) <= set(group)
            if outside or await _misses(call, connection, found):
                raise InvalidRequestError("A patient is not there, or not in the Group", issue_code="not-found")
    if found is not None and len(found) > limit:
        raise InvalidRequestError(f"The export names more than {limit} patients", issue_code="too-costly")
    return found


async def _misses(call: Call, connection: Any, patients: list[str]) -> bool:
    """Whether one of the Patients is not there, as far as the caller may see; who sees none is told nothing."""
    action = next((action for action in "rs" if call.access.may("Patient", action)), None)
    if action is None:
        return False  # The records are bounded by the caller's scopes all the same.
    keys = tuple({resource_key("Patient", item) for item in patients})
    bound = call.access.condition("Patient", action)
    visible_ones = Selection("Patient", (Keys(keys), *((bound,) if bound is not None else ())))
    return await searching.count(connection, visible_ones) < len(keys)


async def _group(call: Call, connection: Any, logical_id: str) -> list[str]:
    """Patients of a Group and of the Groups in it, each group read with the caller's access."""
    compartment = call.access.compartment_key("Group", "r")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    patients: dict[str, None] = {}
    waiting, seen = [logical_id], {logical_id}
    while waiting:
        found = await reading.read(connection, "Group", waiting.pop())
        await call.access.learn(connection, found)
        stored = visible(found, "Group", compartment, call.access)
        own, groups = members_of(orjson.loads(stored.content or b"{}"), now)
        patients |= dict.fromkeys(own)
        waiting += [item for item in dict.fromkeys(groups) if item not in seen]
        seen |= set(groups)
        if len(seen) > _MOST_GROUPS:
            raise InvalidRequestError("The Group holds too many Groups", issue_code="too-costly")
    return list(patients)


def _bulk(call: Call) -> Bulk:
    return call.server.bulk


async def status(call: Call) -> Response:
    """Tell how far a job is; when it is done, the manifest."""
    job = await call.server.jobs.find_own(call.logical_id, _KINDS, call.access.context)
    if job.is_open:
        return _in_progress(call, job)
    if job.status == "failed":
        raise _failure(job)
    expires = job.expires or datetime.now(UTC)
    seconds = math.floor(expires.timestamp())

    urls = [
        f"{call.server.own_url}/$bulk-file/{_bulk(call).file_name(job.id, place, seconds)}"
        for place in range(len(job.state["files"]))
    ]
    body = (manifest if job.kind == EXPORT else import_manifest)(job.state, job.request, urls)
    return Response(orjson.dumps(body), headers={"Expires": http_date(expires)}, media_type="application/json")


def _in_progress(call: Call, job: JobState) -> Response:
    if _bulk(call).is_too_often(job.id):
        raise ThrottledError("The status is asked for too often", headers={"Retry-After": "1"})
    since = (datetime.now(UTC) - job.submitted).total_seconds()
    pause = min(_LONGEST_PAUSE_S, max(1, round(since / 10)))
    progress = job.progress or "waiting"
    return Response(status_code=202, headers={"X-Progress": progress, "Retry-After": str(pause)})


def _failure(job: JobState) -> InteropError:
    return InteropError("The job failed", issues=job.issues)


async def cancel(call: Call) -> Response:
    """End a job, or throw away what a finished one left."""
    job = await call.server.jobs.find_own(call.logical_id, _KINDS, call.access.context)
    await call.server.jobs.cancel(job.id)
    return Response(status_code=202)


async def _check_institution(call: Call, folder: Path) -> None:
    """Refuse files that hold records of patients whom the caller's institution does not manage now.

    Raises
    ------
    NotFoundError
        As if there were no such file.
    """
    if (wall := call.access.wall) is None:
        return
    lists = await asyncio.to_thread(patients_of, folder)
    if lists is not None:
        async with call.server.connections.lend() as connection:
            await wall.learn(connection, {key for keys in lists for key in keys})
    if lists is None or not all(map(wall.shows_one_of, lists)):
        raise NotFoundError("There is no such file, or it has expired")


async def file(call: Call) -> Response:
    """Send one file of a finished export to its owner."""
    job_id, place = _bulk(call).read_name(call.logical_id)
    job = await call.server.jobs.find_own(job_id, _KINDS, call.access.context)
    if job.status != "completed" or place >= len(job.state["files"]):
        raise NotFoundError("There is no such file, or it has expired")
    record = job.state["files"][place]
    path = _bulk(call).path_of(job_id, record)
    if not path.is_file():
        raise NotFoundError("There is no such file, or it has expired")
    await _check_institution(call, path.parent)
    headers = {"ETag": f'"{record["name"].removesuffix(".ndjson")}"', "Cache-Control": "no-store"}
    if job.expires is not None:
        headers["Expires"] = http_date(job.expires)
    return await file_response(call.request, path, record["bytes"], headers)


_DEFINITION = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/"
ROUTES: tuple[Route, ...] = (
    *(
        Route(method, path, handler, "", "operation", definition=_DEFINITION + name)
        for path, handler, name in (
            ("$export", export_system, "export"),
            ("Patient/$export", export_patients, "patient-export"),
            ("Group/{id}/$export", export_group, "group-export"),
        )
        for method in ("GET", "POST")
    ),
    Route("GET", "$bulk-status/{id}", status, "", "operation"),
    Route("DELETE", "$bulk-status/{id}", cancel, "", "operation"),
    Route("GET", "$bulk-file/{id}", file, "", "operation"),
)
