"""One real installation for the journeys; each journey has a patient of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from foramen.kernel.embedded_postgres import stop_postgres
from tests.builders.system import System


def new_system(**extra: str) -> System:
    home = Path(tempfile.mkdtemp(prefix="foramen-e2e-"))
    home.chmod(0o755)
    return System(home, extra=extra)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """The installation that the journeys of a module share. One that stands idle costs the others a tenth of a core."""
    running = new_system()
    running.start()
    yield running
    status = running.stop()
    stop_postgres(running.home / "postgres")
    assert status == 0


@pytest.fixture
def own_system() -> Iterator[System]:
    """An installation that a test may break."""
    running = new_system()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()
    stop_postgres(running.home / "postgres")


ARTIFACTS = Path(__file__).parents[2] / "artifacts"


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Folder for screenshots; kept after the run, never committed."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
