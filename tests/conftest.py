"""Fixtures every suite shares: a real PostgreSQL, signed tokens, the real data when it is at hand."""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from foramen.kernel.embedded_postgres import start_postgres, stop_postgres

TEST_DATA = Path(os.environ.get("FORAMEN_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()


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


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real data (only for tests marked `test_data`)."""
    return TEST_DATA


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of our own for the whole run."""
    folder = Path(tempfile.mkdtemp(prefix="foramen-test-pg-"))
    folder.chmod(0o755)
    yield start_postgres(folder / "data")
    stop_postgres(folder / "data")
    # A database has some 300 files, and each test its own: to remove them takes most of a minute. Nobody waits for it.
    subprocess.Popen(["rm", "-rf", str(folder)], start_new_session=True)


def _new_database(postgres_url: str) -> str:
    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
    head, _, query = postgres_url.partition("?")
    return head.rsplit("/", 1)[0] + f"/{name}" + (f"?{query}" if query else "")


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """An empty database for one test."""
    return _new_database(postgres_url)


@pytest.fixture(scope="module")
def module_database_url(postgres_url: str) -> str:
    """An empty database for one test module."""
    return _new_database(postgres_url)
