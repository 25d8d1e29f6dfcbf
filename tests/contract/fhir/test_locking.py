"""Optimistic locking over real HTTP: 32 writers with a connection each lose no update."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import httpx
import pytest

from tests.contract.fhir.server_process import ServerProcess, authorization, serving

WRITERS = 32
HEADERS = {"accept": "application/fhir+json", "content-type": "application/fhir+json"}


@pytest.fixture(scope="module")
def server(module_database_url: str) -> Iterator[ServerProcess]:
    with serving(module_database_url) as process:
        yield process


def client(server: ServerProcess) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=1)
    headers = {**HEADERS, "authorization": authorization()}
    return httpx.AsyncClient(base_url=f"{server.base}/", headers=headers, limits=limits, timeout=60)


async def _append(server: ServerProcess, url: str, number: int) -> int:
    """Read, add, write with If-Match, until it is in; returns how often it was refused."""
    refusals = 0
    async with client(server) as http:
        while True:
            read = await http.get(url)
            resource = read.json()
            resource.setdefault("identifier", []).append({"system": "urn:writer", "value": str(number)})
            answer = await http.put(url, json=resource, headers={"if-match": read.headers["etag"]})
            if answer.status_code == 200:
                return refusals
            assert answer.status_code == 412, answer.text
            refusals += 1
            await asyncio.sleep(random.random() * 0.02)


async def test_writers_with_if_match_lose_nothing(server: ServerProcess) -> None:
    async with client(server) as http:
        assert (await http.put("Basic/locked", json=basic("locked"))).status_code == 201
        refusals = await asyncio.gather(*(_append(server, "Basic/locked", number) for number in range(WRITERS)))
        found = (await http.get("Basic/locked")).json()
        history = (await http.get("Basic/locked/_history?_count=100")).json()
    assert sorted(int(item["value"]) for item in found["identifier"]) == list(range(WRITERS))
    assert found["meta"]["versionId"] == str(WRITERS + 1)
    assert len(history["entry"]) == WRITERS + 1
    assert sum(refusals) > 0, "nobody met anybody: this shows nothing"


async def test_one_of_many_with_the_same_version_wins(server: ServerProcess) -> None:
    async with client(server) as http:
        await http.put("Basic/race", json=basic("race"))

    async def write(number: int) -> int:
        async with client(server) as http:
            body = {**basic("race"), "identifier": [{"value": str(number)}]}
            return (await http.put("Basic/race", json=body, headers={"if-match": 'W/"1"'})).status_code

    statuses = await asyncio.gather(*(write(number) for number in range(WRITERS)))
    assert sorted(statuses) == [200] + [412] * (WRITERS - 1)


async def test_patchers_without_if_match_lose_nothing(server: ServerProcess) -> None:
    async with client(server) as http:
        await http.put("Basic/patched", json={**basic("patched"), "identifier": [{"value": "first"}]})

    async def write(number: int) -> int:
        async with client(server) as http:
            body = [{"op": "add", "path": "/identifier/-", "value": {"value": str(number)}}]
            headers = {"content-type": "application/json-patch+json"}
            return (await http.patch("Basic/patched", json=body, headers=headers)).status_code

    statuses = await asyncio.gather(*(write(number) for number in range(WRITERS)))
    assert set(statuses) == {200}
    async with client(server) as http:
        found = (await http.get("Basic/patched")).json()
    assert len(found["identifier"]) == WRITERS + 1


def basic(name: str) -> dict[str, object]:
    return {"resourceType": "Basic", "id": name, "code": {"text": "SYNTHETIC"}}
