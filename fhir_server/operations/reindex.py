"""`$reindex`: build the search index anew from the stored bytes, in the background; progress by `$reindex-status`.

An operation of Foramen for administrators; docs/api/reindex.md. R4 leaves maintenance to the server.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from fhir_server.jobs.job import JobState
from fhir_server.operations.parameters import parameters_of, parameters_response
from fhir_server.route import Route
from fhir_server.search.parameters import resource_types
from fhir_server.server import Call
from fhir_server.store import indexing, parameter_jobs
from foramen.kernel.errors import InvalidRequestError, NotFoundError

_KINDS = (indexing.KIND, parameter_jobs.KIND)


async def reindex(call: Call) -> Response:
    """Start rebuilding all types, or those named by `type`."""
    parameters = await parameters_of(call)
    parameters.check_known({"type"})
    types = sorted(set(parameters.listed("type")))
    if set(types) - resource_types():
        raise InvalidRequestError("type names an unknown resource type", issue_code="value")
    server = call.server
    job_id = await indexing.request_reindex(
        server.connections, server.own_url, server.jobs, call.access.context, types or None
    )
    response = parameters_response([{"name": "job", "valueString": job_id}], 202)
    response.headers["Content-Location"] = f"{server.own_url}/$reindex-status/{job_id}"
    return response


async def index_state(call: Call) -> Response:
    """Tell which types are being rebuilt and how far the custom search parameters are."""
    types, custom = await indexing.state(call.server.connections)
    parts: list[dict[str, Any]] = [{"name": "rebuilding", "valueCode": name} for name in types]
    parts += [
        {
            "name": "searchParameter",
            "part": [
                {"name": "code", "valueCode": code},
                {"name": "base", "valueString": bases},
                {"name": "state", "valueCode": state},
            ],
        }
        for code, bases, state in custom
    ]
    return parameters_response(parts)


async def reindex_status(call: Call) -> Response:
    """Tell how far a job is."""
    return parameters_response(_described(await _found(call)))


async def reindex_cancel(call: Call) -> Response:
    """End a job; what it has done stays. A type whose rebuild was cut off is taken up at the next start."""
    state = await _found(call)
    await call.server.jobs.cancel(state.id)
    return Response(status_code=202)


async def _found(call: Call) -> JobState:
    state = await call.server.jobs.find(call.logical_id or _job_id(call))
    if state is None or state.kind not in _KINDS:
        raise NotFoundError("There is no such job, or it has expired")
    return state


def _job_id(call: Call) -> str:
    path: str = call.request.scope["path"]
    return path.rstrip("/").rpartition("/")[2]


def _described(state: JobState) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [
        {"name": "job", "valueString": state.id},
        {"name": "kind", "valueCode": state.kind},
        {"name": "status", "valueCode": state.status},
    ]
    if state.progress:
        parts.append({"name": "progress", "valueString": state.progress})
    for name in ("seen", "changed", "found", "total"):
        if isinstance(state.state.get(name), int):
            parts.append({"name": name, "valueInteger": state.state[name]})
    parts += [{"name": "issue", "valueString": issue.diagnostics} for issue in state.issues]
    return parts


ROUTES: tuple[Route, ...] = (
    Route("POST", "$reindex", reindex, "", "reindex", administrator=True),
    Route("GET", "$reindex", index_state, "", "reindex", administrator=True),
    Route("GET", "$reindex-status/{id}", reindex_status, "", "reindex", administrator=True),
    Route("DELETE", "$reindex-status/{id}", reindex_cancel, "", "reindex", administrator=True),
)
