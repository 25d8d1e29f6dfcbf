"""Start PostgreSQL, migrations, Orthanc, web and worker; watch them; stop them without losing acknowledged work."""

from __future__ import annotations

import base64
import fcntl
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO

from foramen.kernel.embedded_postgres import postgres_pid, start_postgres, stop_postgres
from foramen.kernel.errors import ConflictError, UpstreamError
from foramen.kernel.heartbeat import heartbeat_file
from foramen.kernel.secret_files import read_or_create_secret
from foramen.kernel.settings import Settings
from foramen.supervisor.orthanc_process import orthanc_process
from foramen.supervisor.part import Part
from foramen.supervisor.ports import free_port, is_free, require_free

_TICK_S = 0.1
_BEAT_S = 2.0


class Supervisor:
    """One installation under one FORAMEN_HOME."""

    def __init__(self, settings: Settings, say: Callable[[str], None] = print) -> None:
        self.home = settings.home.resolve()
        self._say = say
        self._stopping = False
        self._lock: IO[str] | None = None
        updates: dict[str, object] = {"home": self.home}
        if settings.orthanc_url is None and not is_free("127.0.0.1", settings.orthanc_http_port):
            updates["orthanc_http_port"] = free_port()
        if "dimse_port" not in settings.model_fields_set and not is_free(settings.dimse_host, settings.dimse_port):
            updates["dimse_port"] = free_port()
        self.settings = settings.model_copy(update=updates)
        self.parts: list[Part] = []

    def run(self) -> None:
        """Start everything, print ``ready: URL``, watch until told to stop.

        Raises
        ------
        ConflictError
            A port is taken, or the same home is already running.
        UpstreamError
            A part did not become ready.
        """
        self.start()
        try:
            self.watch()
        finally:
            self.stop()

    def start(self) -> None:
        """Start all parts and return once they answer."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        self._take_lock()
        require_free(self.settings.host, self.settings.port, "web", "--port")
        if self.settings.orthanc_url is None:
            require_free("127.0.0.1", self.settings.dicom_port, "DICOM", "--dicom-port")
        require_free(self.settings.dimse_host, self.settings.dimse_port, "DIMSE", "FORAMEN_DIMSE_PORT")
        try:
            self._start_database()
            self._start_parts()
        except BaseException:
            self.stop()
            raise
        self._say(f"ready: {self.settings.origin}")

    def watch(self) -> None:
        """Watch the parts and restart what dies, with back-off, until a signal asks to stop."""
        while not self._stopping:
            now = time.monotonic()
            self._watch_database()
            for part in self.parts:
                self._watch_part(part, now)
            time.sleep(_TICK_S)

    def stop(self) -> None:
        """Stop in the reverse order: nobody loses the part it still writes to."""
        for part in reversed(self.parts):
            if part.process is None:
                continue
            part.terminate()
            clean = part.wait_stopped()
            self._status(part.name, "stopped" if clean else "killed, it did not stop in time")
        self.parts.clear()
        if self.settings.database_url is None and self._lock is not None:
            stop_postgres(self.home / "postgres")
            self._status("postgres", "stopped")
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _ask_to_stop(self, *_: object) -> None:
        self._stopping = True

    def _status(self, name: str, text: str) -> None:
        self._say(f"  {name:<10} {text}")

    def _take_lock(self) -> None:
        """One supervisor a home; the lock dies with the process."""
        self.home.mkdir(parents=True, exist_ok=True)
        lock = (self.home / "supervisor.lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ConflictError(f"Foramen is already running with FORAMEN_HOME={self.home}") from None
        self._lock = lock

    def _start_database(self) -> None:
        began = time.monotonic()
        if self.settings.database_url is None:
            start_postgres(self.home / "postgres")
            self._status("postgres", f"ready      {time.monotonic() - began:5.1f} s  (embedded)")
        else:
            self._status("postgres", "yours      FORAMEN_DATABASE_URL")

    def _watch_database(self) -> None:
        if self.settings.database_url is None and postgres_pid(self.home / "postgres") is None:
            self._status("postgres", "ended, restarting")
            start_postgres(self.home / "postgres")
            self._status("postgres", "ready again")

    def _start_parts(self) -> None:
        began = time.monotonic()
        if self.settings.orthanc_url is None:
            self._launch(self._orthanc_part())
        migrations = heartbeat_file(self.home, "migrations")
        migrations.unlink(missing_ok=True)
        web = self._web_part(1)
        self._launch(web)
        for number in range(2, self.settings.web_processes + 1):
            self._launch(self._web_part(number))
        for number in range(1, self.settings.worker_processes + 1):
            self._launch(self._worker_part(number))
        self._await(web, migrations.exists)
        self._launch(self._dimse_part())  # its tables and its client exist only now
        self._status("migrations", f"done       {time.monotonic() - began:5.1f} s")
        for part in self.parts:
            self._await(part, part.is_ready)
            part.ready = True
            pid = part.process.pid if part.process else 0
            where = f", port {self.settings.dimse_port}" if part.name == "dimse" else ""
            self._status(part.name, f"ready      {time.monotonic() - part.started_at:5.1f} s  (pid {pid}{where})")

    def _launch(self, part: Part) -> None:
        part.start()
        self.parts.append(part)

    def _await(self, part: Part, condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if part.poll() is not None or time.monotonic() > deadline or self._stopping:
                raise UpstreamError(f"{part.name} did not start; see {part.log_file}")
            time.sleep(0.05)

    def _watch_part(self, part: Part, now: float) -> None:
        if part.process is None:
            if now >= part.restart_at:
                part.start()
        elif (status := part.poll()) is not None:
            wait = part.schedule_restart(now)
            self._status(part.name, f"ended with status {status}, restarting in {wait:.1f} s (restart {part.restarts})")
        elif not part.ready and part.is_ready():
            part.ready = True
            self._status(part.name, f"ready again {now - part.started_at:4.1f} s  (pid {part.process.pid})")

    def _environment(self) -> dict[str, str]:
        settings = self.settings
        environment = {
            "FORAMEN_HOME": str(self.home),
            "FORAMEN_HOST": settings.host,
            "FORAMEN_PORT": str(settings.port),
            "FORAMEN_DICOM_PORT": str(settings.dicom_port),
            "FORAMEN_DIMSE_PORT": str(settings.dimse_port),
            "FORAMEN_ORTHANC_HTTP_PORT": str(settings.orthanc_http_port),
            "FORAMEN_STABLE_STUDY_S": str(settings.stable_study_s),
            "PYTHONUNBUFFERED": "1",
        }
        if settings.default_patient_id_issuer is not None:
            environment["FORAMEN_DEFAULT_PATIENT_ID_ISSUER"] = settings.default_patient_id_issuer
        return environment

    def _orthanc_part(self) -> Part:
        command, environment = orthanc_process(self.settings)
        return Part(
            "orthanc",
            command,
            environment,
            self.home / "logs" / "orthanc.log",
            lambda: _answers(f"{self.settings.archive_url}/system", self._orthanc_credentials()),
        )

    def _orthanc_credentials(self) -> str:
        pair = f"{self.settings.orthanc_username}:{read_or_create_secret(self.home, 'orthanc')}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def _web_part(self, number: int) -> Part:
        """One web process; they share the port (SO_REUSEPORT), and the kernel deals the connections out."""
        name = "web" if number == 1 else f"web-{number}"
        return Part(
            name,
            [sys.executable, "-m", "foramen", "serve", "--migrate"],
            self._environment(),
            self.home / "logs" / f"{name}.log",
            lambda: _answers(f"{self.settings.internal_origin}/readyz"),
        )

    def _worker_part(self, number: int) -> Part:
        name = "worker" if number == 1 else f"worker-{number}"
        beat = heartbeat_file(self.home, "worker")
        return Part(
            name,
            [sys.executable, "-m", "foramen", "worker"],
            self._environment(),
            self.home / "logs" / f"{name}.log",
            lambda: beat.exists() and time.time() - beat.stat().st_mtime < _BEAT_S,
        )

    def _dimse_part(self) -> Part:
        beat = heartbeat_file(self.home, "dimse")
        return Part(
            "dimse",
            [sys.executable, "-m", "foramen", "serve", "--only", "dimse"],
            self._environment(),
            self.home / "logs" / "dimse.log",
            lambda: beat.exists() and time.time() - beat.stat().st_mtime < _BEAT_S,
        )


# Our own parts are never asked through a proxy that the environment names: requests carry passwords.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _answers(url: str, authorization: str | None = None) -> bool:
    """Whether a loopback URL answers 200."""
    request = urllib.request.Request(url)  # noqa: S310  only our own http URLs
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        with _DIRECT.open(request, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
