"""A running FHIR service on a real PostgreSQL, spoken to over HTTP."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, patient_resource, running
from tests.contract.fhir.bulk_exports import bulk_api, home  # noqa: F401 - fixtures of all that exports


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Secrets and audit files of these tests stay out of the working folder."""
    with pytest.MonkeyPatch.context() as patch:
        if "FORAMEN_HOME" not in os.environ:
            patch.setenv("FORAMEN_HOME", str(tmp_path_factory.mktemp("foramen-home")))
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def module_api(module_database_url: str) -> AsyncIterator[Api]:
    """One server for a whole test module; tests use their own ids and identifiers."""
    async with running(module_database_url) as (_, client):
        yield Api(client)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def found(request: pytest.FixtureRequest, module_api: Api) -> Api:
    """The module's server, holding what the module lists as RESOURCES."""
    for resource in request.module.RESOURCES:
        await module_api.put_ok(resource)
    return module_api


@pytest_asyncio.fixture(loop_scope="session")
async def api(database_url: str) -> AsyncIterator[Api]:
    """A server with an empty record."""
    async with running(database_url) as (_, client):
        yield Api(client)


@pytest.fixture
def patient() -> dict[str, Any]:
    """A synthetic patient."""
    return patient_resource()
