"""`foramen up`: starts fast, restarts what dies, says what is wrong, stops without leftovers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from foramen.kernel.embedded_postgres import postgres_pid
from tests.builders.patience import patience
from tests.builders.system import System, said, wait_for

pytestmark = pytest.mark.system


def test_start_restart_and_stop(own_system: System) -> None:
    own_system.start()
    assert own_system.stop() == 0
    seconds = own_system.start()
    assert seconds < patience(30), "start-up of a prepared home; the goal of 10 s is measured by `foramen bench spine`"
    for part in ("orthanc", "web", "worker"):
        assert said(own_system, rf"{part} +ready")
    assert_small_at_rest(own_system)

    web = own_system.pid_of("web")
    os.kill(web, signal.SIGKILL)
    wait_for(lambda: said(own_system, r"web +ended with status -9"))
    wait_for(lambda: said(own_system, r"web +ready again"))
    assert own_system.pid_of("web") != web
    with own_system.client() as client:
        assert client.get("/fhir/metadata").status_code == 200

    children = psutil.Process(own_system.process.pid).children(recursive=True)
    assert own_system.stop() == 0
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert postgres_pid(own_system.home / "postgres") is None


def assert_small_at_rest(system: System) -> None:
    """Goals of a FHIR web process and of a DICOM one; what only some work needs is loaded by that work."""
    for part, most_mb in (("web", 300), ("dimse", 200), ("worker", 200)):
        process = psutil.Process(system.pid_of(part))
        mapped = " ".join(entry.path for entry in process.memory_maps())
        found = [name for name in ("SimpleITK", "onnxruntime", "libtorch", "scipy/", "pandas") if name in mapped]
        assert not found, (part, found)
        assert process.memory_info().rss < most_mb * 2**20, part


def test_the_parts_end_with_a_killed_supervisor(own_system: System) -> None:
    own_system.start()
    children = psutil.Process(own_system.process.pid).children()
    own_system.process.kill()
    own_system.process.wait()
    _, alive = psutil.wait_procs(children, timeout=25)
    assert not alive
    own_system.lines.clear()
    own_system.start()


def test_a_taken_port_is_said_and_nothing_is_left_running(own_system: System) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", own_system.port))
        listener.listen()
        result = subprocess.run(
            [sys.executable, "-m", "foramen", "up"],
            env=own_system.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 1
    assert f"Port {own_system.port} (web) is taken by" in result.stderr
    assert "Traceback" not in result.stderr
    assert postgres_pid(own_system.home / "postgres") is None


def test_one_home_runs_once(system: System) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "foramen", "up"],
        env=system.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "already running" in result.stderr
