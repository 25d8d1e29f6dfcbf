"""What tests of Bulk Data exports share: a server that exports in small pieces, and how a client follows a job.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, patient_resource, running

ASYNC = {"prefer": "respond-async"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bulk_api(module_database_url: str, home: Path) -> AsyncIterator[Api]:
    """A server whose files lie in a folder of this module and whose exports are cut into small pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(home))
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_SEGMENT", "7")
        patch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "100")
        async with running(module_database_url) as (_, client):
            yield Api(client)


async def finished(api: Api, response: httpx.Response) -> httpx.Response:
    """Follow a kick-off to its end."""
    assert response.status_code == 202, response.text
    url = response.headers["content-location"]
    for _ in range(400):
        found = await api.get(url)
        if found.status_code != 202:
            return found
        assert int(found.headers["retry-after"]) >= 1
        assert found.headers["x-progress"]
        await asyncio.sleep(0.03)
    raise AssertionError("the export does not end")


async def exported(api: Api, path: str, **headers: str) -> dict[str, Any]:
    """Export and return the manifest."""
    found = await finished(api, await api.get(f"/fhir/{path}", **{**ASYNC, **headers}))
    assert found.status_code == 200, found.text
    assert found.headers["content-type"].startswith("application/json")
    assert "expires" in found.headers
    manifest: dict[str, Any] = found.json()
    return manifest


async def lines(api: Api, manifest: dict[str, Any], kind: str = "output") -> dict[str, list[dict[str, Any]]]:
    """Read every file of a manifest, by type."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in manifest[kind]:
        response = await api.get(item["url"], accept="application/fhir+ndjson")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("application/fhir+ndjson")
        rows = [orjson.loads(line) for line in response.content.splitlines()]
        assert len(rows) == item["count"]
        found.setdefault(item["type"], []).extend(rows)
    return found


def references(rows: dict[str, list[dict[str, Any]]]) -> set[str]:
    return {f"{row['resourceType']}/{row['id']}" for found in rows.values() for row in found}


async def patients(api: Api, *names: str) -> None:
    for name in names:
        await api.put_ok({**patient_resource(), "id": name})


def group(name: str, *members: str) -> dict[str, Any]:
    listed = [{"entity": {"reference": member}} for member in members]
    built = {"resourceType": "Group", "id": name, "type": "person", "actual": True}
    return {**built, "member": listed} if listed else built
