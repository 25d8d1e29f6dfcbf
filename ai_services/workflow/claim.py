"""Task states: claim by If-Match so that two workers cannot both take it, progress, and the last word (stage 4).

https://hl7.org/fhir/R4/task.html#statemachine: requested → in-progress → completed | failed | rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ai_services.workflow.priorities import for_live
from foramen.kernel.errors import ConflictError, PreconditionError
from foramen.kernel.fhir_client import FhirClient
from terminology import systems

Resource = dict[str, Any]


class TaskLostError(Exception):
    """The Task is no longer ours: cancelled, answered or taken over. The run stops and writes nothing more."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A Task that this worker works on, and the run that does it."""

    task_id: str
    run_id: str
    code: str


async def claim(fhir: FhirClient, task: Resource, worker_id: str) -> Claim | None:
    """Take a Task; None when somebody else was faster.

    The run id comes from the Task and the version that was requested: a second start of the same request is the same
    run, and a Task that a person requests again is a new one.
    """
    return await _take(fhir, task, worker_id, f"{task['id']}-v{task['meta']['versionId']}")


async def reclaim(fhir: FhirClient, task: Resource, run_id: str) -> Claim | None:
    """Begin our own Task anew under another run id; None when somebody else changed it."""
    return await _take(fhir, task, owner_of(task) or "", run_id)


async def take_over(fhir: FhirClient, task: Resource, worker_id: str) -> Claim | None:
    """Take the Task of a worker that is lost, under its next run id; None when somebody else was faster.

    Should the worker come back, its run finds another one at the Task and writes nothing more.
    """
    return await _take(fhir, task, worker_id, next_run_id(run_of(task) or task["id"]))


async def _take(fhir: FhirClient, task: Resource, worker_id: str, run_id: str) -> Claim | None:
    others = [item for item in task.get("identifier", []) if item.get("system") != systems.IDENTIFIER_RUN]
    taken: Resource = {
        **{key: value for key, value in task.items() if key not in ("statusReason", "output")},
        "status": "in-progress",
        "identifier": [*others, {"system": systems.IDENTIFIER_RUN, "value": run_id}],
        "owner": {"type": "Device", "identifier": {"system": systems.IDENTIFIER_WORKER, "value": worker_id}},
        "businessStatus": {"text": "claimed"},
        "lastModified": _now(),
    }
    try:
        await fhir.update(taken, if_match=str(task["meta"]["versionId"]))
    except (PreconditionError, ConflictError):
        return None
    return Claim(task["id"], run_id, code_of(task))


async def read_own(fhir: FhirClient, task_id: str, run_id: str) -> Resource:
    """Read the Task of a run.

    Raises
    ------
    TaskLostError
        It is not in progress any more, or another run has it.
    """
    task = await fhir.read(f"Task/{task_id}")
    if task.get("status") != "in-progress" or run_of(task) != run_id:
        raise TaskLostError
    return task


async def report_progress(fhir: FhirClient, task_id: str, run_id: str, word: str) -> Resource:
    """Write where the run is; returns the Task."""
    task = await read_own(fhir, task_id, run_id)
    changed = {**task, "businessStatus": {"text": word}, "lastModified": _now()}
    return await fhir.update(changed, if_match=str(task["meta"]["versionId"]))


async def complete(fhir: FhirClient, task_id: str, run_id: str, kind: str, reference: str) -> None:
    """Answer the Task with its result. Repeating it changes nothing."""
    task = await _unless_closed(fhir, task_id, run_id)
    if task is not None:
        output = [{"type": {"text": kind}, "valueReference": {"reference": reference}}]
        await _close(fhir, {**task, "status": "completed", "output": output})


async def give_up(
    fhir: FhirClient, task_id: str, run_id: str, *, status: str, code: str, text_zh: str, text_en: str
) -> None:
    """Answer the Task with a reason: `rejected` where the pipeline declines, `failed` where it could not look."""
    task = await _unless_closed(fhir, task_id, run_id)
    if task is not None:
        coding = {"system": systems.TASK_REASON, "code": code, "display": text_en}
        await _close(fhir, {**task, "status": status, "statusReason": {"coding": [coding], "text": text_zh}})


async def _unless_closed(fhir: FhirClient, task_id: str, run_id: str) -> Resource | None:
    try:
        return await read_own(fhir, task_id, run_id)
    except TaskLostError:
        return None


async def _close(fhir: FhirClient, task: Resource) -> None:
    closed = {key: value for key, value in for_live(task).items() if key != "businessStatus"}
    await fhir.update({**closed, "lastModified": _now()}, if_match=str(task["meta"]["versionId"]))


def owner_of(task: Resource) -> str | None:
    """Worker that owns a Task."""
    identifier = task.get("owner", {}).get("identifier", {})
    return identifier.get("value") if identifier.get("system") == systems.IDENTIFIER_WORKER else None


def run_of(task: Resource) -> str | None:
    """Run that works on a Task."""
    return identifier_value(task, systems.IDENTIFIER_RUN)


def identifier_value(resource: Resource, system: str) -> str | None:
    """Value of the first identifier with this system."""
    for item in resource.get("identifier", []):
        if item.get("system") == system:
            return str(item.get("value"))
    return None


def code_of(task: Resource) -> str:
    """What the Task asks for."""
    return next((str(item["code"]) for item in task["code"]["coding"] if item.get("system") == systems.TASK_CODE), "")


def run_number(run_id: str) -> int:
    """How often the request of a run has been begun anew, counted from 1."""
    _, _, number = run_id.partition(".")
    return int(number) if number.isdigit() else 1


def next_run_id(run_id: str) -> str:
    """Id of the next run for the same request."""
    return f"{run_id.partition('.')[0]}.{run_number(run_id) + 1}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
