"""What a worker does between two pauses: takes waiting Tasks within its limits, and takes up what lies still (stage 4).

Two kinds of Tasks lie still: our own whose run is not (killed before its start, or its database was lost), and those of
a worker that gives no sign of life. Both are begun anew, not for ever.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import Any

from ai_services.workflow import admission, claim, durable, fairness, lease, queue, spool
from ai_services.workflow.admission import Limits, Load
from ai_services.workflow.claim import Claim
from ai_services.workflow.fairness import Waiting
from ai_services.workflow.priorities import QUEUES, Rank
from ai_services.workflow.services import Services
from ai_services.workflow.steps import active_runs
from foramen.kernel.identifiers import new_trace_id
from terminology import systems
from terminology.codes import ANALYSE_STUDY

_MAXIMUM_RUNS = 3
_ENDED = {"code": "unexpected", "text_zh": "多次未能完成分析", "text_en": "Several runs ended without an answer"}
_LOST = {
    "code": "worker-lost",
    "text_zh": "多个分析进程在处理该检查时中断, 未能完成分析",
    "text_en": "Several workers were lost while they analysed the study",
}


@dataclass(frozen=True, slots=True)
class _Run:
    code: str
    rank: Rank


class Dispatcher:
    """What one worker process has in hand, and what it takes next."""

    def __init__(self, services: Services, log: Any) -> None:
        self._services, self._log = services, log
        settings = services.settings
        self._limits = Limits(settings.worker_runs, settings.worker_spool_bytes)
        self._ranks = QUEUES[settings.worker_queue]
        self._runs: dict[str, _Run] = {}
        self._stalled: set[str] = set()
        self._silent: set[tuple[str, str | None]] = set()
        self._served_at: dict[str, float] = {}
        self._spool_bytes = 0

    def take_waiting(self) -> None:
        """Claim Tasks in their turn while this worker's limits allow; all others stay free for other workers."""
        services = self._services
        self._spool_bytes = admission.bytes_in(services.spool)
        wanted = admission.wanted(self._load(), self._limits, self._ranks)
        found = services.wait(queue.waiting(services.fhir, wanted)) if wanted else []
        contended = len({item.institution for item in found}) > 1
        in_work = queue.by_institution(services.wait(queue.in_work(services.fhir))) if contended else {}
        for item in fairness.in_turn(found, in_work, self._served_at):
            if not admission.admits(self._load(), self._limits, claim.code_of(item.task), item.rank):
                continue
            claimed = services.wait(claim.claim(services.fhir, item.task, services.worker_id))
            if claimed is not None:
                self._served_at[item.institution] = time.monotonic()
                self._start(claimed, item)

    def reconcile(self) -> None:
        """Take up our Tasks whose run is not, and Tasks of lost workers; sweep the spool."""
        services = self._services
        in_work = services.wait(queue.in_work(services.fhir))
        stalled, self._stalled = self._stalled, set()
        for item in in_work:
            if claim.owner_of(item.task) == services.worker_id:
                self._take_up(item, stalled)
        self._take_over([item for item in in_work if claim.owner_of(item.task) != services.worker_id])
        self._sweep({claim.run_of(item.task) or "" for item in in_work})

    def _load(self) -> Load:
        self._runs = {run_id: run for run_id, run in self._runs.items() if run_id in active_runs}
        analyses = [run.rank for run in self._runs.values() if run.code == ANALYSE_STUDY.code]
        return Load(analyses, len(self._runs) - len(analyses), self._spool_bytes)

    def _start(self, claimed: Claim, item: Waiting) -> None:
        trace_id = claim.identifier_value(item.task, systems.IDENTIFIER_TRACE) or new_trace_id()
        self._runs[claimed.run_id] = _Run(claimed.code, item.rank)
        active_runs.add(claimed.run_id)
        try:
            durable.start_run(claimed, trace_id)
        except BaseException:
            active_runs.discard(claimed.run_id)  # not started: the next reconciliation finds the Task and starts it
            raise
        self._log.info("task claimed", task_id=claimed.task_id, workflow_id=claimed.run_id, trace_id=trace_id)

    def _take_up(self, item: Waiting, stalled: set[str]) -> None:
        run_id = claim.run_of(item.task)
        if run_id is None or run_id in active_runs:
            return
        state = durable.run_state(run_id)
        if state == "running" and run_id in stalled:
            durable.resume_run(run_id)
        elif state == "running":
            self._stalled.add(run_id)  # may be about to continue by itself: only what stands still twice is resumed
        elif state is None:
            self._start(Claim(item.task["id"], run_id, claim.code_of(item.task)), item)
        else:
            spool.forget(run_id)
            self._begin_anew(item, _ENDED)

    def _take_over(self, of_others: list[Waiting]) -> None:
        """Take Tasks whose worker was silent at two looks; those of the most urgent rank first."""
        services = self._services
        silent, self._silent = self._silent, set()
        if not of_others or services.database_url is None:
            return
        alive = lease.alive(services.database_url, services.settings.worker_lease_s)
        for item in sorted(of_others, key=lambda item: (item.rank, item.age)):
            owner = claim.owner_of(item.task)
            code = claim.code_of(item.task)
            if owner in alive or item.rank not in self._ranks:
                continue
            if (item.task["id"], owner) not in silent:
                self._silent.add((item.task["id"], owner))
            elif admission.admits(self._load(), self._limits, code, item.rank):
                self._log.warning("worker lost, its task is taken over", task_id=item.task["id"])
                self._begin_anew(item, _LOST)
            else:
                self._silent.add((item.task["id"], owner))

    def _begin_anew(self, item: Waiting, reason: dict[str, str]) -> None:
        """Once more under the next run id, but not for ever: a study may be what kills workers."""
        services, run_id = self._services, claim.run_of(item.task) or item.task["id"]
        if claim.run_number(run_id) < _MAXIMUM_RUNS:
            again = services.wait(claim.take_over(services.fhir, item.task, services.worker_id))
            if again is not None:
                self._start(again, item)
            return
        services.wait(claim.give_up(services.fhir, item.task["id"], run_id, status="failed", **reason))

    def _sweep(self, in_work: set[str]) -> None:
        """Remove what runs that are over left in the spool: their worker was killed before it could."""
        oldest = time.time() - self._services.settings.worker_lease_s
        for folder in self._services.spool.glob("*"):
            if folder.name in in_work or folder.name in active_runs:
                continue
            try:
                abandoned = folder.stat().st_mtime < oldest
            except OSError:
                continue
            if abandoned:
                shutil.rmtree(folder, ignore_errors=True)
