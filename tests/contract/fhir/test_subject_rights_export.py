"""A copy of one person's data, for the person and on paper. All data SYNTHETIC.

PIPL art. 45; docs/api/subject-export.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, ai_observation, refused, running
from tests.contract.fhir.subject_world import FAMILY, HIDDEN, NUMBER, OTHER, admin, parameters, record

_LATER = {"prefer": "respond-async"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path_factory.mktemp("subject-home")))
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
        async with running(module_database_url) as (_, client):
            api = Api(client)
            await record(api, "me")
            await api.put_ok({**ai_observation("Patient/me"), "id": "me-ai"})
            await api.as_("user/*.rs", sub="dr", fhirUser="Practitioner/dr").get("/fhir/Observation/me-o")
            yield api


def myself(api: Api, scope: str = "patient/*.rs", name: str = "me") -> Api:
    return api.as_(scope, patient=name, fhirUser=f"Patient/{name}", sub=f"account-{name}", client_id="portal")


async def copied(api: Api, name: str = "me", **asked: Any) -> dict[str, Any]:
    started = await api.post(f"/fhir/Patient/{name}/$subject-export", parameters(**asked), **_LATER)
    assert started.status_code == 202, started.text
    for _ in range(400):
        found = await api.get(started.headers["content-location"])
        if found.status_code != 202:
            assert found.status_code == 200, found.text
            assert found.headers["expires"]
            return {**found.json(), "status": started.headers["content-location"]}
        await asyncio.sleep(0.15)
    raise AssertionError("the copy does not end")


async def rows(api: Api, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for item in items:
        answer = await api.get(item["url"])
        assert answer.status_code == 200
        lines = [orjson.loads(line) for line in answer.content.splitlines()]
        assert len(lines) == item["count"]
        found += lines
    return found


def names(found: list[dict[str, Any]]) -> set[str]:
    return {f"{item['resourceType']}/{item['id']}" for item in found}


async def test_the_person_gets_what_their_reads_give(world: Api):
    me = myself(world)
    manifest = await copied(me)
    found = await rows(me, manifest["output"])
    assert {"Patient/me", "Observation/me-o", "Encounter/me-visit", "ImagingStudy/me-study", "Binary/me-b1"} <= names(
        found
    )
    assert "Observation/me-ai" not in names(found)  # No clinician verified it.
    assert "Group/me-group" not in names(found)  # It names others.
    for item in found:
        answer = await me.get(f"/fhir/{item['resourceType']}/{item['id']}")
        assert answer.status_code == 200, item["id"]
    assert OTHER not in orjson.dumps(found).decode()
    more = manifest["extension"]
    (study,) = more["studies"]
    assert study["uid"] == "1.2.276.0.7230010.3.99.1"
    assert study["url"] == "http://127.0.0.1:8000/dicom-web/studies/1.2.276.0.7230010.3.99.1"
    assert study["modalities"] == ["MR"]
    accesses = await rows(me, more["accessLog"])
    assert more["accessLogIncluded"]
    assert any(e["agent"][0]["role"][0]["text"] == "practitioner" for e in accesses)
    assert all(e["meta"]["security"][0]["code"] == "REDACTED" for e in accesses)
    assert more["history"] == []
    events = await world.ids("AuditEvent?entity=Patient/me&subtype=subject-export")
    assert events, "the copy is audited"


async def test_the_page_can_be_read_and_runs_nothing(world: Api):
    await world.put_ok(
        {
            "resourceType": "Condition",
            "id": "me-evil",
            "subject": {"reference": "Patient/me"},
            "clinicalStatus": {
                "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]
            },
            "code": {"text": "<script>alert(1)</script> SYNTHETIC 腰椎间盘突出"},
        }
    )
    me = myself(world)
    page = await me.get((await copied(me))["extension"]["summary"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in page.headers["content-security-policy"]
    assert page.headers["content-disposition"].startswith("attachment")
    assert page.headers["cache-control"] == "no-store"
    text = page.text
    for said in (FAMILY, NUMBER, HIDDEN, "腰椎间盘突出", "谁查看过", "Who saw it", "1.2.276.0.7230010.3.99.1"):
        assert said in text, said
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http-equiv" in text
    assert "src=" not in text


async def test_earlier_versions_on_request(world: Api):
    chief = admin(world, "chief")
    manifest = await copied(chief, history=True)
    old = await rows(chief, manifest["extension"]["history"])
    assert ("Patient", "2") in {(item["resourceType"], item["meta"]["versionId"]) for item in old}
    assert ("Observation", "1") in {(item["resourceType"], item["meta"]["versionId"]) for item in old}
    assert "me-moved" not in {item["id"] for item in old}
    mine = await rows(myself(world), (await copied(myself(world), history=True))["extension"]["history"])
    assert {item["id"] for item in mine} <= {item["id"] for item in old}
    assert len(mine) >= 3


async def test_on_paper_it_is_full(world: Api):
    """An administrator has no scope for the record itself, and gets all of it, unreleased findings too."""
    chief = world.as_("foramen/admin", sub="chief", client_id="console")
    manifest = await copied(chief)
    found = names(await rows(chief, manifest["output"]))
    assert {"Observation/me-ai", "Binary/me-b1", "Binary/me-b2", "Binary/me-b4", "RelatedPerson/me-rel"} <= found
    assert not {item for item in found if "other" in item}
    assert manifest["extension"]["accessLogIncluded"]


async def test_others_are_refused(world: Api):
    path = "/fhir/Patient/me/$subject-export"
    clinician = world.as_("user/*.rs", sub="dr", fhirUser="Practitioner/dr")
    refused(await clinician.post(path, parameters(), **_LATER), 403, "forbidden")
    launched = world.as_("patient/*.rs", patient="me", sub="dr", fhirUser="Practitioner/dr")
    refused(await launched.post(path, parameters(), **_LATER), 403, "forbidden")
    refused(await myself(world, name="me-other").post(path, parameters(), **_LATER), 404, "not-found")
    refused(await myself(world, scope="openid").post(path, parameters(), **_LATER), 403, "forbidden")
    refused(await myself(world).post(path, parameters()), 400, "required")
    refused(await myself(world).post(path, parameters(pictures=True), **_LATER), 400, "not-supported")
    refused(
        await admin(world, "chief").post("/fhir/Patient/none/$subject-export", parameters(), **_LATER), 404, "not-found"
    )


async def test_files_are_for_who_asked(world: Api):
    me = myself(world)
    manifest = await copied(me)
    urls = [manifest["output"][0]["url"], manifest["extension"]["summary"], manifest["status"]]
    for url in urls:
        for other in (world, myself(world, name="me-other"), world.as_("user/*.rs", sub="dr", client_id="portal")):
            refused(await other.get(url), 404, "not-found")
        assert (await world.http.get(url)).status_code == 401
        broken = url[:-12] + ("y" if url[-12] == "x" else "x") + url[-11:]
        assert (await me.get(broken)).status_code == 404
    assert (await me.delete(manifest["status"])).status_code == 202
    for url in urls:
        assert (await me.get(url)).status_code == 404


async def test_few_scopes_few_types(world: Api):
    me = myself(world, scope="patient/Observation.rs patient/Patient.rs")
    manifest = await copied(me)
    assert {item["type"] for item in manifest["output"]} == {"Observation", "Patient"}
    assert not manifest["extension"]["accessLogIncluded"]
    assert manifest["extension"]["studies"] == []
