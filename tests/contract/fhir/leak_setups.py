"""What some leak probes need beside a record: jobs of other clients, their files, single AuditEvents, deletions."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import tarfile

import httpx

from tests.contract.fhir.api import Api
from tests.contract.fhir.leak_world import World

_LATER = {"prefer": "respond-async"}


def _id(response: httpx.Response) -> str:
    assert response.status_code == 202, response.text
    return response.headers["content-location"].rpartition("/")[2]


async def export_job(everyone: Api, owner: Api, world: World) -> None:
    """`{job}`: an export under way or done."""
    if world.owner is None:
        world.more["job"] = secrets.token_hex(18)
    else:
        world.more["job"] = _id(await owner.get("/fhir/$export?_type=Observation", **_LATER))
        await _done(owner, f"/fhir/$bulk-status/{world.more['job']}")


async def export_file(everyone: Api, owner: Api, world: World) -> None:
    """`{file}`: a file of an export; in the world without an owner its job was cancelled."""
    job = _id(await owner.get("/fhir/$export?_type=Observation", **_LATER))
    manifest = (await _done(owner, f"/fhir/$bulk-status/{job}")).json()
    url = manifest["output"][0]["url"]
    if world.owner is None:
        assert (await owner.delete(f"/fhir/$bulk-status/{job}")).status_code == 202
    world.more["file"] = url.rpartition("/")[2]


async def async_job(everyone: Api, owner: Api, world: World) -> None:
    """`{job}`: a search that was put off."""
    if world.owner is None:
        world.more["job"] = secrets.token_hex(18)
    else:
        asked = await owner.get(f"/fhir/Observation?_id={world.name}", **_LATER)
        world.more["job"] = _id(asked)
        await _done(owner, f"/fhir/$async-status/{world.more['job']}")


async def reindex_job(everyone: Api, owner: Api, world: World) -> None:
    """`{job}`: a rebuild of one small type."""
    world.more["job"] = secrets.token_hex(18) if world.owner is None else await _reindexed(everyone)


async def idle(everyone: Api, owner: Api, world: World) -> None:
    """No index is being rebuilt."""
    await _reindexed(everyone)


async def _reindexed(everyone: Api) -> str:
    """Id of a rebuild that has come to its end, the only one."""
    body = {"resourceType": "Parameters", "parameter": [{"name": "type", "valueString": "Basic"}]}
    job = ""
    for _ in range(600):
        if not job:
            started = await everyone.post("/fhir/$reindex", body)
            job = _id(started) if started.status_code == 202 else ""
        elif '"completed"' in (await everyone.get(f"/fhir/$reindex-status/{job}")).text:
            return job
        await asyncio.sleep(0.02)
    raise AssertionError("the rebuilding does not end")


async def indexed(everyone: Api, owner: Api, world: World) -> None:
    """The text of the Observation can be found."""
    for _ in range(600):
        if world.owner is None or await everyone.ids(f"Observation?_content={world.name}"):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the text is not indexed")


def package() -> bytes:
    """The smallest implementation guide."""
    files = {
        "package/package.json": {"name": "leak.test", "version": "1.0.0", "fhirVersions": ["4.0.1"]},
        "package/a.json": {"resourceType": "ValueSet", "url": "urn:leak:package", "status": "active"},
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name, content in files.items():
            text = json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text))
    return out.getvalue()


async def _done(owner: Api, url: str) -> httpx.Response:
    for _ in range(600):
        found = await owner.get(url)
        if found.status_code != 202:
            assert found.status_code == 200, found.text
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("the job does not end")


async def audit_event(everyone: Api, owner: Api, world: World) -> None:
    """`{event}`: the AuditEvent of a read of the record."""
    if world.owner is None:
        world.more["event"] = "00000000-0000-7000-8000-" + secrets.token_hex(6)
        return
    assert (await everyone.get(f"/fhir/Patient/{world.name}")).status_code == 200
    found = await everyone.ids(f"AuditEvent?entity=Patient/{world.name}&subtype=read")
    world.more["event"] = found[0]


async def deleted(everyone: Api, owner: Api, world: World) -> None:
    """The Observation was there once."""
    if world.owner is not None:
        assert (await everyone.delete(f"/fhir/Observation/{world.name}")).status_code == 204
