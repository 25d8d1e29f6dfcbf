"""The worker: takes AI Tasks from the record and answers them, a few at a time, one at the models (stage 4).

https://hl7.org/fhir/R4/task.html. Reaches record and pixels over HTTP only; survives kill -9, restarts and outages.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import psycopg
from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError

from ai_services.workflow import durable
from ai_services.workflow import services as worker_services
from ai_services.workflow.dispatch import Dispatcher
from ai_services.workflow.lease import Keeper, Sign
from ai_services.workflow.model_watch import ModelWatch
from ai_services.workflow.services import Services
from ai_services.workflow.steps import active_runs
from foramen.kernel.errors import InteropError
from foramen.kernel.heartbeat import beat
from foramen.kernel.log import configure_log, get_log
from foramen.kernel.settings import Settings

_RECONCILE_S = 5.0
_SLOWEST_POLL_S = 5.0
_STARTING_S = 60.0
_STARTING_POLL_S = 0.25
_GRACE_S = 5.0
_LIBRARY_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


@dataclass(slots=True)
class _Loop:
    """What the loop remembers between two looks."""

    services: Services
    dispatcher: Dispatcher
    log: Any
    connected: bool | None = None
    began_at: float = field(default_factory=time.monotonic)
    pause_s: float = 0.0
    reconciled_at: float = float("-inf")
    keeper: Keeper | None = None
    watch: ModelWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = ModelWatch(self.services, at_start=self.services.settings.worker_warm_up)

    def keep_lease(self) -> None:
        """Give signs of life from the first look on, before anything is claimed."""
        services = self.services
        if self.keeper is None and services.database_url is not None:
            sign = Sign(services.worker_id, services.settings.worker_device, services.settings.worker_queue)
            keeper = Keeper(services.database_url, sign, services.settings.worker_lease_s)
            keeper.start()
            self.keeper = keeper
        if self.keeper is not None:
            self.keeper.went_round()


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
    for name in _LIBRARY_THREADS:  # read when NumPy is loaded; its products are small, threads would only wait
        os.environ.setdefault(name, "1")
    services = worker_services.connect(settings, durable.take_worker_id(settings.home))
    services.database_url = database_url
    worker_services.configure(services)
    log = get_log()
    if settings.worker_device == "cuda" and not has_device(services, log):
        sys.exit(2)
    if not _launch(database_url, services, stopping, log):
        return
    log.info("worker started")
    serve(services, stopping)
    _stop(log)


def serve(services: Services, stopping: threading.Event) -> None:
    """Look for Tasks until `stopping` is set."""
    loop = _Loop(services, Dispatcher(services, get_log()), get_log(), pause_s=services.settings.worker_poll_s)
    while not stopping.is_set():
        _look(loop)
        stopping.wait(loop.pause_s)
    if loop.keeper is not None:
        loop.keeper.stop()


def _look(loop: _Loop) -> None:
    """Look once; an outage is logged once and makes the pauses longer, until the record answers again."""
    try:
        loop.keep_lease()
        if time.monotonic() - loop.reconciled_at > min(_RECONCILE_S, loop.services.settings.worker_lease_s / 2):
            loop.dispatcher.reconcile()
            loop.watch.look()
            loop.reconciled_at = time.monotonic()
        loop.dispatcher.take_waiting()
    except (InteropError, SQLAlchemyError, psycopg.Error, dbos_error.DBOSException) as exc:
        if loop.connected is not False:
            reason = exc.message if isinstance(exc, InteropError) else type(exc).__name__
            loop.log.warning("record or database not reachable, waiting", reason=reason)
        loop.connected = False
        starting = time.monotonic() - loop.began_at < _STARTING_S
        loop.pause_s = _STARTING_POLL_S if starting else min(max(loop.pause_s, 0.1) * 1.5, _SLOWEST_POLL_S)
        return
    if loop.connected is False:
        loop.log.info("record and database reachable again")
    loop.connected = True
    beat(loop.services.settings.home, "worker")
    loop.pause_s = loop.services.settings.worker_poll_s


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


def has_device(services: Services, log: Any) -> bool:
    """Whether the device that was asked for is there and can be used: told at the start, not with the first study."""
    from ai_services.models.registry import load_manifest
    from ai_services.models.runtime import DeviceError, open_session

    try:
        services.configure_models()
        smallest = min(load_manifest("lumbar_mr").models.values(), key=lambda file: file.path.stat().st_size)
        open_session(smallest.path, smallest.identity.sha256)  # that it is offered does not say that it loads
    except DeviceError as missing:
        log.error("worker cannot start", reason=str(missing))
        return False
    return True


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
