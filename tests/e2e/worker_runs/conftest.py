"""The worker against the real record, identity, DICOMweb gateway and Orthanc."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from foramen.cli import app
from foramen.kernel.settings import get_settings
from tests.builders import databases
from tests.builders.installation import Installation, installation
from tests.builders.worker_runs import StartWorker, WorkerProcess


@pytest.fixture(scope="package")
def system(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation without a worker for all of them; each test has studies of its own."""
    with (
        databases.database(postgres_url) as url,
        installation(tmp_path_factory.mktemp("installation"), url) as running,
    ):
        yield running


@pytest.fixture
def foramen(system: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`foramen …` beside the installation, without the seconds a process needs to start: words → what it printed."""
    for name, value in system.environment.items():
        if name.startswith("FORAMEN_"):
            monkeypatch.setenv(name, value)
    get_settings.cache_clear()

    def run(*words: str, status: int = 0, only_stdout: bool = False) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == status, f"{done.output}\n{done.exception!r}"
        return done.stdout if only_stdout else done.output

    yield run
    get_settings.cache_clear()


@pytest.fixture
def start_worker(system: Installation, tmp_path: Path) -> Iterator[StartWorker]:
    started: list[WorkerProcess] = []

    def start(**environment: str) -> WorkerProcess:
        started.append(WorkerProcess(system, tmp_path / "runs", **environment))
        return started[-1]

    yield start
    for worker in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.stop()
