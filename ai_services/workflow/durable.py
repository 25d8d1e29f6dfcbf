"""DBOS of one worker process: its schema, its identity, and whether a run is known (stage 4).

https://docs.dbos.dev/python/reference/configuration. No telemetry, no conductor, no call to the outside.
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from dbos import DBOS, DBOSConfig, SetWorkflowID

from ai_services.workflow.analyse import analyse_study
from ai_services.workflow.claim import Claim
from ai_services.workflow.recommend import recommend_options
from foramen.kernel.identifiers import new_trace_id
from terminology.codes import ANALYSE_STUDY, RECOMMEND_OPTIONS

SCHEMA = "dbos"
# Raise it when the steps of a workflow change their order: runs of another version are not continued but begun anew.
WORKFLOW_VERSION = "2"
_WORKFLOWS = {ANALYSE_STUDY.code: analyse_study, RECOMMEND_OPTIONS.code: recommend_options}
KINDS = tuple(_WORKFLOWS)
"""Codes of the Tasks that this worker can answer."""
_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
_open_locks: list[int] = []


def take_worker_id(home: Path) -> str:
    """Return the name of this worker, the same after a restart, and never shared by two that run.

    A folder's id and the first free slot: the kernel frees the slot's lock when the process dies, even by kill -9.
    """
    folder = home / "worker"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    id_file = folder / "id"
    if not id_file.exists():
        staged = folder / f".id-{os.getpid()}"
        staged.write_text(new_trace_id()[:12], encoding="utf-8")
        staged.rename(id_file)
    installation = id_file.read_text(encoding="utf-8")
    for slot in range(64):
        descriptor = os.open(folder / f"slot-{slot}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        _open_locks.append(descriptor)
        return f"{installation}-{slot}"
    raise RuntimeError("64 workers already run in this folder")


def launch(database_url: str, worker_id: str) -> None:
    """Start DBOS; runs that this worker left behind continue by themselves."""
    config: DBOSConfig = {
        "name": "foramen-worker",
        "system_database_url": database_url,
        "dbos_system_schema": SCHEMA,
        "application_version": WORKFLOW_VERSION,
        "executor_id": worker_id,
        "log_level": "CRITICAL",
        "enable_otlp": False,
        "use_listen_notify": False,
        "sys_db_pool_size": 3,
        "max_executor_threads": 8,
        "notification_listener_polling_interval_sec": 1.0,
        "scheduler_polling_interval_sec": 3600.0,
    }
    # DBOS reports every retried step with its stack; our own log says once what matters.
    logging.getLogger("dbos").setLevel(logging.CRITICAL)
    DBOS(config=config)
    try:
        DBOS.launch()
    except Exception:
        DBOS.destroy()
        raise


def stop() -> None:
    """Stop DBOS; what is unfinished continues at the next start."""
    DBOS.destroy(workflow_completion_timeout_sec=0)


def start_run(claimed: Claim, trace_id: str) -> None:
    """Start the run of a claim in the background; starting it twice is starting it once."""
    with SetWorkflowID(claimed.run_id):
        DBOS.start_workflow(_WORKFLOWS[claimed.code], claimed.task_id, claimed.run_id, trace_id)


def run_state(run_id: str) -> str | None:
    """``running``, ``ended``, or None when DBOS does not know the run."""
    status = DBOS.get_workflow_status(run_id)
    if status is None:
        return None
    return "ended" if status.status in _ENDED else "running"


def resume_run(run_id: str) -> None:
    """Take up a run that stands still, for example one begun by another version."""
    DBOS.resume_workflow(run_id)
