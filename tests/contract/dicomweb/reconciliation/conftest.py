"""Fixtures: a gateway of which the tests say when it looks for what changed behind its back; the command; the rows."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dicomweb.database import Database
from foramen.cli import app as cli
from foramen.kernel.errors import InteropError
from foramen.kernel.settings import get_settings
from foramen.supervisor.ports import free_port
from tests.builders import databases
from tests.builders.dicom import Orthanc, private_orthanc
from tests.builders.tokens import ORIGIN
from tests.contract.dicomweb.conftest import Gateway, running_gateway


@pytest.fixture(scope="package")
def module_database_url(postgres_url: str) -> Iterator[str]:
    """One database for all of them; each test has studies and patients of its own."""
    with databases.database(postgres_url) as url:
        yield url


@pytest.fixture(scope="package")
def orthanc() -> Iterator[Orthanc]:
    home = Path(tempfile.mkdtemp(prefix="foramen-test-reconciliation-"))
    # The tests say when it is looked for what changed behind our back.
    with private_orthanc(home, port=free_port(), public_url=ORIGIN, reconcile_every_s=3600) as running:
        yield running
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="package")
async def gateway(orthanc: Orthanc, module_database_url: str) -> AsyncIterator[Gateway]:
    async with running_gateway(orthanc, module_database_url) as running:
        yield running


@pytest.fixture
def command(gateway: Gateway, module_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`foramen reconcile …` beside the running gateway: exit status and output."""
    settings = gateway.orthanc.settings
    named = {"HOME": settings.home, "PORT": settings.port, "DATABASE_URL": module_database_url}
    named |= {"ORTHANC_HTTP_PORT": settings.orthanc_http_port, "DICOM_PORT": settings.dicom_port, "PUBLIC_URL": ORIGIN}
    for name, value in named.items():
        monkeypatch.setenv(f"FORAMEN_{name}", str(value))
    get_settings.cache_clear()

    async def run(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, cli, ["reconcile", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit | InteropError), result.exception
        said = str(result.exception) if isinstance(result.exception, InteropError) else ""
        return result.exit_code, result.stdout + said

    yield run
    get_settings.cache_clear()


@pytest.fixture
async def rows(module_database_url: str) -> Any:
    database = Database(module_database_url)
    async with database.connection() as connection:
        yield connection
    await database.close()
