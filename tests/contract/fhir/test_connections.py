"""Requests wait for a database connection for a limited time only."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from fhir_server.app import FhirService
from fhir_server.store.connections import Connections
from foramen.kernel.errors import UpstreamError
from tests.contract.fhir.api import Api, refused, running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_who_waits_too_long_for_a_connection_is_told_so_and_leaves_nothing_behind(database_url: str) -> None:
    connections = Connections(database_url, 1, 30, wait_s=0.05)
    await connections.start()
    async with connections.lend() as held:
        assert await held.fetchval("SELECT 1") == 1
        for _ in range(3):
            with pytest.raises(UpstreamError) as raised:
                async with connections.lend():
                    pytest.fail("there is no second connection")
            assert raised.value.issue_code == "throttled"
            assert int(raised.value.headers["Retry-After"]) >= 1
        assert connections.waiting == 0
    for _ in range(2):
        async with connections.lend() as again:
            assert again is held
    await connections.stop()


async def test_a_connection_given_back_goes_to_who_still_waits(database_url: str) -> None:
    connections = Connections(database_url, 1, 30, wait_s=5)
    await connections.start()

    async def use() -> int:
        async with connections.lend() as connection:
            return int(await connection.fetchval("SELECT 1"))

    async with connections.lend():
        waiting = [asyncio.create_task(use()) for _ in range(3)]
        await asyncio.sleep(0.02)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert connections.waiting == 2
    assert await asyncio.gather(*waiting[1:]) == [1, 1]
    await connections.stop()


async def test_a_busy_server_answers_503_and_goes_on(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORAMEN_FHIR_CONNECTION_WAIT_S", "0.2")
    async with running(database_url) as (service, client):
        api = Api(client)
        async with AsyncExitStack() as stack:
            for _ in range(_size(service)):
                await stack.enter_async_context(service._connections.lend())
            refusals = await asyncio.gather(*(api.get("/fhir/Patient?name=x") for _ in range(5)))
            for refusal in refusals:
                refused(refusal, 503, "throttled")
                assert refusal.headers["retry-after"].isdecimal()
        assert (await api.get("/fhir/Patient?name=x")).status_code == 200


def _size(service: FhirService) -> int:
    return service._server.limits.connections
