"""The queue as FHIR Tasks: one open Task a report, with its rank and why; a finished annotation leaves. Pure.

https://hl7.org/fhir/R4/task.html. The annotator opens the study in the review app; signing the report is the label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from terminology import systems
from terminology.codes import ANNOTATE, SYNTHETIC

Resource = dict[str, Any]
OPEN = ("requested", "received", "accepted", "in-progress", "on-hold")
_WAITING = frozenset({"requested"})
"""Only of Tasks that nobody has taken up the rank is changed, and only they give way to other studies."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One study of the new queue."""

    report: str
    patient: str
    rank: int
    uncertainty: float
    distance: float
    reason_zh: str
    reason_en: str
    synthetic: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What to post, and how many Tasks are new, moved to another rank, done, and taken back."""

    entries: tuple[Resource, ...]
    new: int
    moved: int
    done: int
    taken_back: int


def changes(
    wanted: Sequence[Wanted],
    open_tasks: Iterable[Resource],
    decided: Mapping[str, str],
    still_open: frozenset[str],
    *,
    seed: int,
    now: str,
) -> Changes:
    """Compare the queue with the Tasks that are open.

    Parameters
    ----------
    wanted : the new queue
    open_tasks : annotate Tasks in an open status, as they are stored
    decided : report → FHIR instant of its signature: those annotations are finished
    still_open : reports that may still be annotated; a Task on another one is taken back even from who is at work
    seed : of the order; it stands in the Task
    now : FHIR instant
    """
    left = {item.report: item for item in wanted}
    entries: list[Resource] = []
    moved = done = taken_back = 0
    for task in open_tasks:
        report = str(task.get("focus", {}).get("reference", ""))
        if report in decided:
            output = [{"type": {"text": "decision"}, "valueReference": {"reference": report}}]
            entries.append(_update({**task, "status": "completed", "lastModified": now, "output": output}))
            done += 1
        elif report in left:
            item = left.pop(report)
            said = {**task, **_saying(item, seed)}
            if task["status"] in _WAITING and said != task:
                entries.append(_update({**said, "lastModified": now}))
                moved += 1
        elif task["status"] in _WAITING or report not in still_open:
            reason = {
                "text": "不再需要标注：报告已被取代，或队列已变 · no longer wanted: superseded, or the queue changed"
            }
            entries.append(_update({**task, "status": "cancelled", "statusReason": reason, "lastModified": now}))
            taken_back += 1
    # Somebody is at work on some: what they have keeps its place, and no second Task is made for it.
    entries += [_create(item, seed, now) for item in left.values()]
    return Changes(tuple(entries), len(left), moved, done, taken_back)


def _saying(item: Wanted, seed: int) -> Resource:
    """What changes with the order."""
    return {
        "reasonCode": {"text": f"{item.reason_zh} · {item.reason_en}"},
        "input": [
            {"type": _type("rank", "排序", "rank"), "valuePositiveInt": item.rank},
            {"type": _type("uncertainty", "不确定度", "uncertainty"), "valueDecimal": round(item.uncertainty, 4)},
            {"type": _type("distance", "差异度", "distance"), "valueDecimal": round(item.distance, 4)},
            {"type": _type("seed", "随机种子", "seed"), "valueInteger": seed},
        ],
    }


def _create(item: Wanted, seed: int, now: str) -> Resource:
    task: Resource = {
        "resourceType": "Task",
        "identifier": [{"system": systems.IDENTIFIER_ANNOTATION, "value": item.report}],
        "status": "requested",
        "intent": "order",
        "priority": "routine",
        "code": ANNOTATE.concept(),
        "description": "在结果复核中逐级核对并签发 · check each level in the review app and sign",
        "focus": {"reference": item.report},
        "for": {"reference": item.patient},
        "authoredOn": now,
        "lastModified": now,
        **_saying(item, seed),
    }
    if item.synthetic:
        task["meta"] = {"tag": [SYNTHETIC.coding()]}
    statuses = ",".join(OPEN)
    condition = f"identifier={systems.IDENTIFIER_ANNOTATION}|{item.report}&status={statuses}"
    return {"resource": task, "request": {"method": "POST", "url": "Task", "ifNoneExist": condition}}


def _update(task: Resource) -> Resource:
    url, version = f"Task/{task['id']}", task["meta"]["versionId"]
    return {"resource": task, "request": {"method": "PUT", "url": url, "ifMatch": f'W/"{version}"'}}


def _type(code: str, zh: str, en: str) -> Resource:
    return {"coding": [{"system": systems.QUEUE_INPUT, "code": code, "display": en}], "text": f"{zh} {en}"}
