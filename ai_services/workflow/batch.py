"""A batch: studies of the record are asked for again, a few at a time, behind all live work (stage 4).

The Tasks do it: workers answer them as any other, so the results are those of live mode, and what was asked goes on
when whoever asked is killed. https://hl7.org/fhir/R4/task.html
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ai_services.workflow.claim import identifier_value
from ai_services.workflow.priorities import for_batch
from foramen.kernel.errors import ConflictError, InvalidRequestError, PreconditionError
from foramen.kernel.fhir_client import FhirClient
from terminology import systems
from terminology.codes import ANALYSE_STUDY

Resource = dict[str, Any]
_ANSWERED = {"completed": "completed", "rejected": "declined", "failed": "failed"}
_OF_THE_PAST = ("statusReason", "output", "owner", "businessStatus")
_IDS_A_SEARCH = 40
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one study.

    Parameters
    ----------
    status : ``completed``, ``declined`` or ``failed`` as its Task says; ``skipped``: it has its answer;
        ``refused``: it cannot be asked for
    reason : code, empty where it was completed
    """

    study_instance_uid: str
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a batch asks.

    Parameters
    ----------
    name : stands in each Task; what was asked under it is not asked again
    again : ask also for what has its answer, for example by an earlier model version
    window : Tasks that wait for an answer at the same time; the queue is not flooded
    poll_s : between two looks
    registration_s : time that a study has to appear in the record (it was just sent)
    """

    name: str
    again: bool = False
    window: int = 8
    poll_s: float = 1.0
    registration_s: float = 0.0


async def studies_of_group(fhir: FhirClient, group: str, modality: str = "MR") -> list[str]:
    """Study Instance UIDs of the studies of a cohort's patients that hold a modality.

    Raises
    ------
    InvalidRequestError
        `group` is no ``Group/id`` of persons.
    """
    if not group.startswith("Group/"):
        raise InvalidRequestError("A cohort is named as Group/id")
    resource = await fhir.read(group)
    if resource.get("type") != "person" or resource.get("actual") is not True:
        raise InvalidRequestError("The cohort is not a Group of actual persons")
    members = [item for item in resource.get("member", []) if not item.get("inactive")]
    patients = [str(item.get("entity", {}).get("reference", "")) for item in members]
    found: list[str] = []
    for start in range(0, len(patients), _IDS_A_SEARCH):
        page = ",".join(name for name in patients[start : start + _IDS_A_SEARCH] if name.startswith("Patient/"))
        parameters = [("subject", page), ("modality", modality), ("status", "available")]
        found += [uid for study in await fhir.search("ImagingStudy", parameters) if (uid := _uid_of(study))]
    return sorted(set(found))


async def run_batch(fhir: FhirClient, studies: Iterable[str], plan: Plan) -> AsyncIterator[Outcome]:
    """Ask for studies, a window at a time, and yield what became of each as it is known."""
    waiting, under_way = iter(studies), dict[str, str]()
    exhausted = False
    while under_way or not exhausted:
        while not exhausted and len(under_way) < plan.window:
            uid = next(waiting, None)
            if uid is None:
                exhausted = True
                break
            asked = await _ask(fhir, uid, plan)
            if isinstance(asked, Outcome):
                yield asked
            else:
                under_way[asked["id"]] = uid
        for task in await _tasks(fhir, under_way):
            outcome = _outcome(under_way[task["id"]], task)
            if outcome is not None:
                del under_way[task["id"]]
                yield outcome
        if under_way:
            await asyncio.sleep(plan.poll_s)


async def _ask(fhir: FhirClient, uid: str, plan: Plan) -> Resource | Outcome:
    """The Task that answers for a study, asked for where that is needed; or why there is nothing to wait for."""
    for _ in range(_ATTEMPTS):
        task = await _task_of(fhir, uid, plan.registration_s)
        if task is None:
            return Outcome(uid, "refused", "not-registered")
        mine = identifier_value(task, systems.IDENTIFIER_BATCH) == plan.name
        if task["status"] in ("requested", "in-progress") and (mine or not plan.registration_s):
            return task  # somebody waits for it already: it keeps its place
        if task["status"] in _ANSWERED:
            if mine:
                return _outcome(uid, task) or Outcome(uid, "refused", "unknown")
            if task["status"] != "failed" and not plan.again:
                return Outcome(uid, "skipped", "already-answered")
        elif task["status"] == "in-progress":
            return task
        elif task["status"] != "requested":
            return Outcome(uid, "refused", _reason(task) or str(task["status"]))
        try:
            return await fhir.update(_asked(task, plan.name), if_match=str(task["meta"]["versionId"]))
        except (PreconditionError, ConflictError):
            continue  # it changed between reading and writing: look again
    return Outcome(uid, "refused", "changes-all-the-time")


def _asked(task: Resource, name: str) -> Resource:
    """The Task, requested by a batch."""
    others = [item for item in task.get("identifier", []) if item.get("system") != systems.IDENTIFIER_BATCH]
    kept = {key: value for key, value in for_batch(task).items() if key not in _OF_THE_PAST}
    return {
        **kept,
        "status": "requested",
        "identifier": [*others, {"system": systems.IDENTIFIER_BATCH, "value": name}],
        "lastModified": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


async def _task_of(fhir: FhirClient, uid: str, patience_s: float) -> Resource | None:
    """The Task of a study's newest images; None where the record has none."""
    parameters = [
        ("group-identifier", f"{systems.DICOM_UID}|urn:oid:{uid}"),
        ("code", f"{ANALYSE_STUDY.system}|{ANALYSE_STUDY.code}"),
    ]
    deadline = time.monotonic() + patience_s
    while True:
        found = await fhir.search("Task", parameters)
        if found:
            return max(found, key=lambda task: (task["status"] != "cancelled", str(task.get("authoredOn", ""))))
        if time.monotonic() >= deadline:
            return None
        await asyncio.sleep(0.5)


async def _tasks(fhir: FhirClient, ids: Iterable[str]) -> list[Resource]:
    found: list[Resource] = []
    for page in _pages(list(ids)):
        found += await fhir.search("Task", [("_id", ",".join(page)), ("_count", str(_IDS_A_SEARCH))])
    return found


def _pages(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _IDS_A_SEARCH):
        yield ids[start : start + _IDS_A_SEARCH]


def _outcome(uid: str, task: Resource) -> Outcome | None:
    """What an ended Task says; None while it is under way."""
    if task["status"] in _ANSWERED:
        return Outcome(uid, _ANSWERED[task["status"]], _reason(task))
    if task["status"] in ("requested", "in-progress"):
        return None
    return Outcome(uid, "refused", _reason(task) or str(task["status"]))


def _reason(task: Resource) -> str:
    coding = (task.get("statusReason", {}).get("coding") or [{}])[0]
    return str(coding.get("code", ""))


def _uid_of(study: Resource) -> str | None:
    value = identifier_value(study, systems.DICOM_UID)
    return value.removeprefix("urn:oid:") if value else None
