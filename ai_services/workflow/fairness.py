"""In which order waiting Tasks are taken, so that an institution that sends thousands starves no other. Pure (stage 4).

Rank decides first. Within a rank institutions take turns: the one with the fewest Tasks in work goes first, then the
one that was served longest ago, then the oldest Task.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ai_services.workflow.priorities import Rank

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A Task that nobody has taken.

    Parameters
    ----------
    institution : reference of the patient's managing Organization; empty where the record names none
    """

    task: Resource
    rank: Rank
    institution: str

    @property
    def age(self) -> tuple[str, str]:
        """Sorts the oldest first."""
        return str(self.task.get("authoredOn", "")), str(self.task.get("id", ""))


def in_turn(waiting: Iterable[Waiting], in_work: Mapping[str, int], served_at: Mapping[str, float]) -> list[Waiting]:
    """Order Tasks.

    Parameters
    ----------
    in_work : Tasks in progress by institution, of all workers
    served_at : when each institution was served last, on any clock; who is not in it was never served
    """
    ordered: list[Waiting] = []
    by_rank: dict[Rank, list[Waiting]] = defaultdict(list)
    for item in waiting:
        by_rank[item.rank].append(item)
    busy = dict(in_work)
    turn = dict(served_at)
    latest = max(turn.values(), default=0.0)
    for rank in sorted(by_rank):
        queues: dict[str, deque[Waiting]] = defaultdict(deque)
        for item in sorted(by_rank[rank], key=lambda item: item.age):
            queues[item.institution].append(item)
        while queues:
            chosen = min(
                queues, key=lambda name: (busy.get(name, 0), turn.get(name, float("-inf")), queues[name][0].age)
            )
            ordered.append(queues[chosen].popleft())
            latest += 1.0
            busy[chosen], turn[chosen] = busy.get(chosen, 0) + 1, latest
            if not queues[chosen]:
                del queues[chosen]
    return ordered
