"""Fixtures every suite shares: a real PostgreSQL, signed tokens, the real data when it is at hand."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from foramen.kernel.embedded_postgres import start_postgres, stop_postgres
from tests import scheduling
from tests.builders import databases

TEST_DATA = Path(os.environ.get("FORAMEN_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()


pytest_xdist_make_scheduler = scheduling.make_scheduler


def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` starts."""
    return scheduling.workers()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, in words, what this machine cannot run."""
    reasons = {
        "test_data": None if TEST_DATA.is_dir() else f"no real data at FORAMEN_TEST_DATA ({TEST_DATA})",
        "fhir_definitions": None
        if (TEST_DATA.parent / "fhir").is_dir()
        else "no official FHIR packages beside the data",
        "training": None
        if importlib.util.find_spec("monai")
        else "torch and MONAI are not installed (make setup-train)",
    }
    kept, dropped = [], []
    for item in items:
        missing = [mark for mark, reason in reasons.items() if reason and item.get_closest_marker(mark)]
        (dropped if missing else kept).append(item)
    for mark, reason in reasons.items():
        count = sum(1 for item in dropped if item.get_closest_marker(mark))
        if reason and count:
            config.get_terminal_writer().line(f"deselected {count} tests marked {mark}: {reason}")
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept
    if hasattr(config, "workerinput"):
        scheduling.order(items)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real data (only for tests marked `test_data`)."""
    return TEST_DATA


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of our own for the whole run (with xdist: of each worker), set up as in production.

    It lies in memory where there is enough: some 700 databases are made and thrown away, which is mostly writing files.
    A test that kills PostgreSQL has one of its own, on the disk (`start_postgres`).
    """
    folder = Path(tempfile.mkdtemp(prefix="foramen-test-pg-", dir=databases.folder_in_memory()))
    folder.chmod(0o755)
    yield start_postgres(folder / "data")
    stop_postgres(folder / "data")
    # Nobody waits until some thousand files are removed.
    subprocess.Popen(["rm", "-rf", str(folder)], start_new_session=True)


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A database for one test, with the tables of today and nothing in them."""
    with databases.database(postgres_url) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database without tables for one test, which is about making them."""
    with databases.database(postgres_url, template="template0") as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str) -> Iterator[str]:
    """A database for one test module, with the tables of today and nothing in them."""
    with databases.database(postgres_url) as url:
        yield url
