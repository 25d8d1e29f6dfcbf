"""Which Task goes first: emergencies, then live work, then batches. Pure functions (stage 4).

https://hl7.org/fhir/R4/valueset-request-priority.html: stat, asap, urgent, routine. A Task of a batch asks for a
performer of kind ``batch`` (Task.performerType); a person who gives it another priority lifts it out of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from terminology import systems
from terminology.codes import BATCH_PERFORMER

Resource = dict[str, Any]
_BATCH = f"{systems.TASK_PERFORMER}|{BATCH_PERFORMER.code}"


class Rank(IntEnum):
    """Order in which Tasks are taken; the lower goes first."""

    STAT = 0
    ASAP = 1
    URGENT = 2
    ROUTINE = 3
    BATCH = 4


LAST = int(Rank.BATCH) + 1
"""After every Task: what no Task waits for."""
EXPEDITED = (Rank.STAT, Rank.ASAP, Rank.URGENT)
QUEUES: dict[str, tuple[Rank, ...]] = {
    "all": tuple(Rank),
    "live": (*EXPEDITED, Rank.ROUTINE),
    "batch": (Rank.BATCH,),
}
"""Ranks that a worker takes, by its setting."""
_WORDS = {rank.name.lower(): rank for rank in EXPEDITED}


def rank_of(task: Resource) -> Rank:
    """Rank of a Task; without a priority it is routine, as the standard says."""
    expedited = _WORDS.get(str(task.get("priority", "routine")))
    if expedited is not None:
        return expedited
    return Rank.BATCH if is_of_batch(task) else Rank.ROUTINE


def is_of_batch(task: Resource) -> bool:
    """Whether a Task asks for a batch's performer."""
    return any(
        coding.get("system") == systems.TASK_PERFORMER and coding.get("code") == BATCH_PERFORMER.code
        for concept in task.get("performerType", [])
        for coding in concept.get("coding", [])
    )


def search_of(rank: Rank) -> list[tuple[str, str]]:
    """Search parameters that find the Tasks of one rank."""
    if rank in EXPEDITED:
        return [("priority", rank.name.lower())]
    return [
        ("priority:not", ",".join(_WORDS)),
        ("performer" if rank is Rank.BATCH else "performer:not", _BATCH),
    ]


def for_batch(task: Resource) -> Resource:
    """The Task as one of a batch."""
    return {**for_live(task), "priority": "routine", "performerType": [BATCH_PERFORMER.concept()]}


def for_live(task: Resource) -> Resource:
    """The Task without the mark of a batch: what is asked for again later is live work."""
    return {key: value for key, value in task.items() if key != "performerType" or not is_of_batch(task)}


def expedited(ranks: Iterable[Rank]) -> int:
    """How many of them are emergencies."""
    return sum(rank in EXPEDITED for rank in ranks)
