"""`$erase-preview`, `$erase`, `$erase-decide`: erase a person's record, by two administrators. PIPL art. 47.

Our own operations (ADR 0028); docs/api/erase.md
"""

from __future__ import annotations

from datetime import UTC
from typing import Any

from starlette.responses import Response

from fhir_server.operations.legal_hold import audit, parts_of
from fhir_server.operations.parameters import Parameters, parameters_of, parameters_response
from fhir_server.route import Route
from fhir_server.search.hashing import resource_key
from fhir_server.server import Call
from fhir_server.store import erasing, erasures, jobs, legal_holds, reading
from fhir_server.store.erasures import Erasure
from fhir_server.subject_rights.erasure import KIND
from fhir_server.subject_rights.record import Record, collect, marks
from fhir_server.subject_rights.retention import Years
from fhir_server.subject_rights.texts import checked_text
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from foramen.kernel.identifiers import new_logical_id

_DECISIONS = ("approve", "refuse", "lift")
_MOST_NAMED = 200


async def preview(call: Call) -> Response:
    """Say what an erasure would remove, what stays and why."""
    (await parameters_of(call)).check_known(())
    async with call.server.connections.lend() as connection:
        await _there(connection, call.logical_id)
        record = await collect(connection, call.logical_id, call.server.own_url)
        holds = await legal_holds.over(connection, record.key)
        events = await erasing.count_events(connection, record.key)
    call.patient = f"Patient/{call.logical_id}"
    parts = _preview(call, record)
    parts += [{"name": "hold", "part": parts_of(hold)} for hold in holds]
    parts.append({"name": "auditEventsKept", "valueInteger": events})
    return parameters_response(parts)


def _preview(call: Call, record: Record) -> list[dict[str, Any]]:
    limits = call.server.limits
    kept = record.visit.kept_until(Years(limits.retention_outpatient_years, limits.retention_inpatient_years))
    parts: list[dict[str, Any]] = [
        {"name": "decision", "valueCode": "restrict" if kept is not None else "erase"},
        *([{"name": "keptUntil", "valueInstant": kept.isoformat()}] if kept is not None else []),
        *(
            {
                "name": "resources",
                "part": [{"name": "type", "valueCode": name}, {"name": "count", "valueInteger": count}],
            }
            for name, count in sorted(record.counts.items())
        ),
        {"name": "versions", "valueInteger": record.count_versions},
    ]
    named = {"study": sorted(record.studies), "stays": sorted(record.shared.values()), "toLookAt": record.residue}
    return parts + [
        {"name": name, "valueString": value} for name, values in named.items() for value in sorted(values)[:_MOST_NAMED]
    ]


async def request(call: Call) -> Response:
    """Ask for the erasure of a record; another administrator has to approve it."""
    parameters = await parameters_of(call)
    parameters.check_known(("reason",))
    reason, context = parameters.required_text("reason"), call.access.context
    async with call.server.connections.lend() as connection, connection.transaction():
        await _there(connection, call.logical_id)
        _check_named(context)
        reason = checked_text(reason, "reason", await marks(connection, call.logical_id))
        await legal_holds.check(connection, resource_key("Patient", call.logical_id))
        erasure_id = new_logical_id()
        names = sorted(_names(context))
        await erasures.insert(connection, erasure_id, call.logical_id, reason, context.subject, names)
        await audit(call, connection)
        found = await erasures.find(connection, erasure_id, call.logical_id)
    return await _answer(call, [found] if found else [], status=202)


async def list_requests(call: Call) -> Response:
    """Return the requests to erase a record, how far they are and what became of them."""
    async with call.server.connections.lend() as connection:
        found = await erasures.of_patient(connection, call.logical_id)
    return await _answer(call, found)


async def decide(call: Call) -> Response:
    """Approve or refuse a request to erase a record, or open a closed one again."""
    parameters = await parameters_of(call)
    parameters.check_known(("request", "decision", "note"))
    decision = parameters.required_text("decision")
    if decision not in _DECISIONS:
        raise InvalidRequestError(f"decision must be one of {', '.join(_DECISIONS)}", issue_code="value")
    async with call.server.connections.lend() as connection, connection.transaction():
        await _decide(call, connection, parameters, decision)
        await audit(call, connection)
        found = await erasures.find(connection, parameters.required_text("request"), call.logical_id)
    call.server.restrictions.forget()
    return await _answer(call, [found] if found else [], status=202 if decision == "approve" else 200)


async def _decide(call: Call, connection: Any, parameters: Parameters, decision: str) -> None:
    erasure = await erasures.find(connection, parameters.required_text("request"), call.logical_id, lock=True)
    if erasure is None:
        raise NotFoundError("There is no such request for this patient")
    _check_named(call.access.context)
    note = checked_text(parameters.required_text("note"), "note", await marks(connection, call.logical_id))
    years, by = call.server.limits.erasure_record_years, call.access.context.subject
    if decision == "approve":
        job_id = await _approve(call, connection, erasure)
        await erasures.decide(connection, erasure.id, "approved", by, note, job_id)
    elif decision == "refuse":
        if erasure.status != "requested":
            raise ConflictError("Only a request that waits can be refused")
        await erasures.decide(connection, erasure.id, "refused", by, note)
        await erasures.finish(connection, erasure.id, "refused", None, years)
    else:
        if erasure.status not in ("restricted", "held"):
            raise ConflictError("Only a record that was closed and not erased can be opened")
        await erasures.decide(connection, erasure.id, "lifted", by, note)
        await erasures.finish(connection, erasure.id, "lifted", None, years)
        await erasures.reopen(connection, call.logical_id)


async def _approve(call: Call, connection: Any, erasure: Erasure) -> str:
    """Close the record and begin the job, in the transaction of the approval; returns the job's id.

    Raises
    ------
    ForbiddenError
        The same person asked for it.
    ConflictError
        It was decided, or a hold is in force.
    """
    if _names(call.access.context) & set(erasure.requesters):
        raise ForbiddenError("Another administrator has to approve what this one asked for")
    if erasure.status != "requested" and not await _has_failed(connection, erasure):
        raise ConflictError("The request was decided already")
    await _there(connection, call.logical_id)
    await legal_holds.check(connection, resource_key("Patient", call.logical_id))
    await erasures.close(connection, call.logical_id, "erasing", erasure.id)
    asked = {"patient": call.logical_id, "erasure": erasure.id, "trace_id": call.trace_id}
    return await call.server.jobs.submit(KIND, asked, owner=call.access.context, connection=connection)


async def _has_failed(connection: Any, erasure: Erasure) -> bool:
    """Whether an approved request was given up by its job, so that it may be approved once more."""
    if erasure.status != "approved":
        return False
    job = await jobs.find(connection, erasure.job) if erasure.job else None
    return job is None or job["status"] not in ("queued", "running")


async def _there(connection: Any, patient: str) -> None:
    if await reading.read(connection, "Patient", patient) is None:
        raise NotFoundError("Patient not found")


def _names(context: AccessContext) -> set[str]:
    """Return every name of who asks: the account, whose rights it uses, and the person behind it."""
    return {name for name in (context.subject, context.fhir_user, *context.lenders) if name}


def _check_named(context: AccessContext) -> None:
    """Refuse a service: a person asks, and another approves.

    Raises
    ------
    ForbiddenError
        The token names no account.
    """
    if not context.subject or context.subject == context.client_id:
        raise ForbiddenError("This needs the account of a person, not that of a client")


async def _answer(call: Call, found: list[Erasure], status: int = 200) -> Response:
    parts = [{"name": "request", "part": await _parts(call, erasure)} for erasure in found]
    return parameters_response(parts, status)


async def _parts(call: Call, erasure: Erasure) -> list[dict[str, Any]]:
    texts = {
        "id": erasure.id,
        "status": erasure.status,
        "reason": erasure.reason,
        "requestedBy": erasure.requested_by,
        "decidedBy": erasure.decided_by,
        "note": erasure.note,
        "progress": await _progress(call, erasure),
    }
    moments = {"requested": erasure.requested, "decided": erasure.decided, "finished": erasure.finished}
    parts: list[dict[str, Any]] = [{"name": name, "valueString": text} for name, text in texts.items() if text]
    parts += [{"name": n, "valueInstant": at.astimezone(UTC).isoformat()} for n, at in moments.items() if at]
    if erasure.status == "approved":  # Until it is done there is a checkpoint, and no outcome.
        return parts
    parts += [_outcome(name, value) for name, value in erasure.outcome.items() if value not in (None, [], {})]
    return parts


async def _progress(call: Call, erasure: Erasure) -> str | None:
    if erasure.status != "approved" or not erasure.job:
        return None
    job = await call.server.jobs.find(erasure.job)
    if job is None or job.status == "failed":
        issues = "; ".join(issue.diagnostics for issue in job.issues) if job is not None else ""
        return f"failed: {issues}; approve once more to go on"
    return job.progress or "waiting"


def _outcome(name: str, value: Any) -> dict[str, Any]:
    """Return one finding of an outcome as a part."""
    if isinstance(value, bool | int):
        return {"name": name, "valueInteger": int(value)}
    if isinstance(value, dict):
        return {"name": name, "part": [{"name": kind, "valueInteger": count} for kind, count in sorted(value.items())]}
    return {"name": name, "valueString": ", ".join(map(str, value)) if isinstance(value, list) else str(value)}


_DEFINITION = "https://foramen.example/fhir/OperationDefinition/Patient-"
ROUTES: tuple[Route, ...] = tuple(
    Route(
        method, f"Patient/{{id}}/${name}", handler, "", "operation", definition=_DEFINITION + name, administrator=True
    )
    for method, name, handler in (
        ("GET", "erase-preview", preview),
        ("POST", "erase-preview", preview),
        ("POST", "erase", request),
        ("GET", "erase", list_requests),
        ("POST", "erase-decide", decide),
    )
)
