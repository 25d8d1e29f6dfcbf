"""The worker: takes AI Tasks from the record and answers them, one analysis at a time (stage 4).

https://hl7.org/fhir/R4/task.html. Reaches record and pixels over HTTP only; survives kill -9, restarts and outages.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError

from ai_services.workflow import claim, durable, spool
from ai_services.workflow import services as worker_services
from ai_services.workflow.claim import Claim
from ai_services.workflow.services import Services
from ai_services.workflow.steps import active_runs
from foramen.kernel.errors import InteropError
from foramen.kernel.heartbeat import beat
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.log import configure_log, get_log
from foramen.kernel.settings import Settings
from terminology import systems

_RECONCILE_S = 5.0
_SLOWEST_POLL_S = 5.0
_STARTING_S = 60.0
_STARTING_POLL_S = 0.25
_GRACE_S = 5.0
_MAXIMUM_RUNS = 3


@dataclass(slots=True)
class _Poll:
    """What the loop remembers between two looks."""

    services: Services
    log: Any
    connected: bool | None = None
    began_at: float = field(default_factory=time.monotonic)
    pause_s: float = 0.0
    reconciled_at: float = float("-inf")
    running: dict[str, str] = field(default_factory=dict)
    stalled: set[str] = field(default_factory=set)


def run(settings: Settings, database_url: str) -> None:
    """Work until SIGTERM or SIGINT. Waits quietly while database or record are not there.

    Parameters
    ----------
    settings : of the process
    database_url : PostgreSQL that keeps the durable runs, in a schema of their own
    """
    configure_log(settings.log_level, "worker")
    stopping = threading.Event()
    _on_signals(stopping)
    services = worker_services.connect(settings, durable.take_worker_id(settings.home))
    worker_services.configure(services)
    log = get_log()
    if not _launch(database_url, services, stopping, log):
        return
    log.info("worker started")
    serve(services, stopping)
    _stop(log)


def serve(services: Services, stopping: threading.Event) -> None:
    """Look for Tasks until `stopping` is set."""
    poll = _Poll(services, get_log(), pause_s=services.settings.worker_poll_s)
    while not stopping.is_set():
        _look(poll)
        stopping.wait(poll.pause_s)


def _look(poll: _Poll) -> None:
    """Look once; an outage is logged once and makes the pauses longer, until the record answers again."""
    try:
        if time.monotonic() - poll.reconciled_at > _RECONCILE_S:
            _reconcile(poll)
            poll.reconciled_at = time.monotonic()
        _take_waiting(poll)
    except (InteropError, SQLAlchemyError, dbos_error.DBOSException) as exc:
        if poll.connected is not False:
            reason = exc.message if isinstance(exc, InteropError) else type(exc).__name__
            poll.log.warning("record or database not reachable, waiting", reason=reason)
        poll.connected = False
        starting = time.monotonic() - poll.began_at < _STARTING_S
        poll.pause_s = _STARTING_POLL_S if starting else min(max(poll.pause_s, 0.1) * 1.5, _SLOWEST_POLL_S)
        return
    if poll.connected is False:
        poll.log.info("record and database reachable again")
    poll.connected = True
    beat(poll.services.settings.home, "worker")
    poll.pause_s = poll.services.settings.worker_poll_s


def _take_waiting(poll: _Poll) -> None:
    """Claim the oldest Task of each kind of which no run is active: the others stay free for other workers."""
    services = poll.services
    poll.running = {run_id: code for run_id, code in poll.running.items() if run_id in active_runs}
    idle = set(durable.KINDS) - set(poll.running.values())
    if not idle:
        return
    for task in services.wait(claim.waiting_tasks(services.fhir, idle)):
        code = claim.code_of(task)
        if code not in idle:
            continue
        claimed = services.wait(claim.claim(services.fhir, task, services.worker_id))
        if claimed is not None:
            idle.discard(code)
            _start(poll, claimed, task)


def _start(poll: _Poll, claimed: Claim, task: claim.Resource) -> None:
    trace_id = claim.identifier_value(task, systems.IDENTIFIER_TRACE) or new_trace_id()
    poll.running[claimed.run_id] = claimed.code
    active_runs.add(claimed.run_id)
    try:
        durable.start_run(claimed, trace_id)
    except BaseException:
        active_runs.discard(claimed.run_id)  # not started: the next reconciliation finds the Task and starts it
        raise
    poll.log.info("task claimed", task_id=claimed.task_id, workflow_id=claimed.run_id, trace_id=trace_id)


def _reconcile(poll: _Poll) -> None:
    """Take up our Tasks in progress whose run is not: killed before its start, or its database was lost."""
    services, stalled = poll.services, poll.stalled
    poll.stalled = set()
    for task in services.wait(claim.tasks_of(services.fhir, services.worker_id)):
        run_id = claim.run_of(task)
        if run_id is None or run_id in active_runs:
            continue
        state = durable.run_state(run_id)
        if state == "running" and run_id in stalled:
            durable.resume_run(run_id)
        elif state == "running":
            poll.stalled.add(run_id)  # may be about to continue by itself: only what stands still twice is resumed
        elif state is None:
            _start(poll, Claim(task["id"], run_id, claim.code_of(task)), task)
        else:
            _begin_anew(poll, task, run_id)


def _begin_anew(poll: _Poll, task: claim.Resource, run_id: str) -> None:
    """A run ended without answering its Task (the database failed at the wrong moment): once more, but not for ever."""
    services = poll.services
    spool.forget(run_id)
    if run_number(run_id) < _MAXIMUM_RUNS:
        again = services.wait(claim.reclaim(services.fhir, task, next_run_id(run_id)))
        if again is not None:
            _start(poll, again, task)
        return
    reason = {"code": "unexpected", "text_zh": "多次未能完成分析", "text_en": "Several runs ended without an answer"}
    services.wait(claim.give_up(services.fhir, task["id"], run_id, status="failed", **reason))


def run_number(run_id: str) -> int:
    """How often the request of a run has been begun anew, counted from 1."""
    _, _, number = run_id.partition(".")
    return int(number) if number.isdigit() else 1


def next_run_id(run_id: str) -> str:
    """Id of the next run for the same request."""
    return f"{run_id.partition('.')[0]}.{run_number(run_id) + 1}"


def _launch(database_url: str, services: Services, stopping: threading.Event, log: Any) -> bool:
    """Start the durable runs as soon as the database answers; False when the process is to stop before."""
    pause_s, reported = 0.2, False
    while not stopping.is_set():
        try:
            durable.launch(database_url, services.worker_id)
        except Exception as exc:  # noqa: BLE001  DBOS raises what its driver raises; waiting is right for all of it
            if not reported:
                log.warning("database not reachable, waiting", reason=type(exc).__name__)
            reported = True
            stopping.wait(pause_s)
            pause_s = min(pause_s * 2, _SLOWEST_POLL_S)
        else:
            return True
    return False


def _on_signals(stopping: threading.Event) -> None:
    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)


def _stop(log: Any) -> None:
    """Give a run that is nearly done a moment; one that is not continues at the next start."""
    deadline = time.monotonic() + _GRACE_S
    while active_runs and time.monotonic() < deadline:
        time.sleep(0.1)
    log.info("worker stopped", count=len(active_runs))
    if active_runs:
        # Threads cannot be ended from outside, and every step is durable: leaving now loses nothing.
        os._exit(0)
    durable.stop()
