"""Erasure of a person's record: by two administrators, whole, and stopped by holds and the law. All data SYNTHETIC.

PIPL art. 47; docs/api/erase.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, observation, refused, running
from tests.contract.fhir.subject_world import (
    FAMILY,
    HIDDEN,
    MARKS,
    NUMBER,
    admin,
    approved,
    asked,
    finished,
    parameters,
    record,
    traces,
    values,
)

_LATER = {"prefer": "respond-async"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("subject-home")
        patch.setenv("FORAMEN_HOME", str(folder))
        patch.setenv("FORAMEN_FHIR_FULL_TEXT", "true")
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
        yield folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(module_database_url: str, home: Path) -> AsyncIterator[Api]:
    async with running(module_database_url) as (_, client):
        yield Api(client)


async def test_nothing_of_the_person_is_left(world: Api, module_database_url: str, home: Path):
    """All tables and files are searched for the marks before and after; the neighbour's record stays."""
    one, two = admin(world, "chief"), admin(world, "lawyer")
    await record(world, "gone")
    assert await world.ids(f"Observation?_content={HIDDEN}")  # The words are indexed.
    late = await world.get("/fhir/Observation?patient=gone", prefer="respond-async")
    export = await world.get("/fhir/$export?_type=Patient,Observation", prefer="respond-async")
    innocent = await world.get("/fhir/$export?_type=Practitioner", prefer="respond-async")
    for started in (late, export, innocent):
        await _done(world, started.headers["content-location"])
    before = await traces(module_database_url, home)
    held = " ".join(before)
    # The answer that was put off (job.state) is sealed as a whole, so nothing shows in it; see `late` below.
    for place in ("resource.content", "history.content", "string_value", "full_text", "bulk"):
        assert place in held, place

    preview = await one.get("/fhir/Patient/gone/$erase-preview")
    told = values(preview.json()["parameter"])
    assert told["decision"] == "erase"
    assert told["study"] == "1.2.276.0.7230010.3.99.1"
    counts = {
        values(p["part"])["type"]: values(p["part"])["count"]
        for p in preview.json()["parameter"]
        if p["name"] == "resources"
    }
    assert counts["Observation"] == 2  # One is deleted.
    assert counts["Binary"] == 3

    request = await asked(one, "gone")
    assert (await approved(two, "gone", request)).status_code == 202
    outcome = await finished(one, "gone", request)
    assert outcome["status"] == "erased", outcome
    assert await traces(module_database_url, home) == {}
    refused(await one.get("/fhir/Patient/gone"), 404, "not-found")
    refused(await one.get("/fhir/Patient/gone/_history"), 404, "not-found")
    assert (await one.get(export.headers["content-location"])).status_code == 404
    assert (await world.get(late.headers["content-location"])).status_code == 404
    assert (await world.get(innocent.headers["content-location"])).status_code == 200

    # What others need is there, without the name; what was measured keeps its digits.
    assert (await world.get("/fhir/Patient/gone-other")).status_code == 200
    group = (await world.get("/fhir/Group/gone-group")).json()
    assert group["member"][0]["entity"] == {"reference": "Patient/gone"}
    mention = await world.get("/fhir/Observation/gone-mention")
    assert b"1.50" in mention.content or b"1.5" in mention.content
    assert mention.json()["focus"] == [{"reference": "Patient/gone"}]
    assert (await world.get("/fhir/Binary/gone-b4")).status_code == 200
    assert len((await world.get("/fhir/Observation/gone-moved/_history")).json()["entry"]) == 1
    task = (await world.get(f"/fhir/{outcome['imagingTask']}")).json()
    assert task["input"][0]["valueUri"] == "urn:oid:1.2.276.0.7230010.3.99.1"
    assert "for" not in task

    # The audit is whole, by the random id; the request is kept.
    events = await one.ids("AuditEvent?entity=Patient/gone")
    assert len(events) > 10
    assert int(outcome["auditEventsKept"]) > 10
    refused(
        await one.put("/fhir/Observation/back", {**observation("Patient/gone"), "id": "back"}), 409, "business-rule"
    )
    refused(await one.post("/fhir/Patient/gone/$erase", parameters(reason="again")), 404, "not-found")


async def _done(api: Api, url: str) -> Any:
    for _ in range(400):
        found = await api.get(url)
        if found.status_code != 202:
            assert found.status_code == 200, found.text
            return found.json()
        await asyncio.sleep(0.05)
    raise AssertionError("the job does not end")


async def test_two_people(world: Api):
    one, two = admin(world, "chief"), admin(world, "lawyer")
    await record(world, "pair")
    request = await asked(one, "pair")
    refused(await one.post("/fhir/Patient/pair/$erase", parameters(reason="twice")), 409, "duplicate")
    refused(await approved(one, "pair", request), 403, "forbidden")
    # Who uses what the first one lent is no second person, nor is a service.
    borrowed = world.as_("system/*.cruds foramen/admin", sub="assistant", delegated_by=[{"sub": "chief"}])
    refused(await approved(borrowed, "pair", request), 403, "forbidden")
    service = world.as_("system/*.cruds foramen/admin", sub="robot", client_id="robot")
    refused(await approved(service, "pair", request), 403, "forbidden")
    refused(await approved(world.as_("user/*.cruds", sub="lawyer"), "pair", request), 403, "forbidden")
    assert (await world.get("/fhir/Patient/pair")).status_code == 200
    body = parameters(request=request, decision="refuse", note="the person withdrew")
    assert (await two.post("/fhir/Patient/pair/$erase-decide", body)).status_code == 200
    refused(await approved(two, "pair", request), 409, "conflict")
    refused(await approved(two, "pair", "none"), 404, "not-found")
    assert (await world.get("/fhir/Patient/pair")).status_code == 200


@pytest.mark.parametrize("reason", [f"asked by {FAMILY} Qqrrssmark", f"number {NUMBER.lower()}"])
async def test_a_reason_may_not_name_the_person(world: Api, reason: str):
    await record(world, "named")
    one = admin(world, "chief")
    refused(await one.post("/fhir/Patient/named/$erase", parameters(reason=reason)), 422, "business-rule")
    body = parameters(reason=reason, basis="Civil Procedure Law art. 84")
    refused(await one.post("/fhir/Patient/named/$legal-hold", body), 422, "business-rule")
    refused(await one.post("/fhir/Patient/named/$erase", parameters(reason=" ")), 422, "value")
    refused(await one.post("/fhir/Patient/named/$erase", parameters()), 400, "required")


async def test_a_hold_stops_everything(world: Api):
    one, two = admin(world, "chief"), admin(world, "lawyer")
    await record(world, "held")
    request = await asked(one, "held")
    body = parameters(reason="lawsuit", basis="Civil Procedure Law art. 84")
    placed = await one.post("/fhir/ImagingStudy/held-study/$legal-hold", body)
    assert placed.status_code == 200, placed.text
    hold = values(placed.json()["parameter"][0]["part"])["id"]
    outcome = refused(await approved(two, "held", request), 409, "business-rule")
    assert hold in outcome["issue"][0]["diagnostics"]
    assert "ImagingStudy/held-study" in outcome["issue"][0]["diagnostics"]
    preview = values((await one.get("/fhir/Patient/held/$erase-preview")).json()["parameter"])
    assert values(preview["hold"])["id"] == hold
    assert (await world.get("/fhir/Patient/held")).status_code == 200  # Nor is it closed.
    old = parameters(expungePreviousVersions=True)
    refused(await one.post("/fhir/Patient/held/$expunge", old), 409, "business-rule")
    refused(await one.post("/fhir/ImagingStudy/held-study/$expunge", old), 409, "business-rule")
    assert (await one.post("/fhir/Observation/held-o/$expunge", old)).status_code == 200  # Not under this hold.
    whole = await one.post("/fhir/Patient/$expunge", parameters(expungePreviousVersions=True))
    assert whole.status_code == 200
    assert len((await world.get("/fhir/Patient/held/_history")).json()["entry"]) == 3

    release = parameters(hold=hold, reason="the case is closed")
    refused(await one.post("/fhir/ImagingStudy/none/$legal-hold-release", release), 404, "not-found")
    assert (await one.post("/fhir/ImagingStudy/held-study/$legal-hold-release", release)).status_code == 200
    refused(await one.post("/fhir/ImagingStudy/held-study/$legal-hold-release", release), 404, "not-found")
    (listed,) = (await one.get("/fhir/ImagingStudy/held-study/$legal-hold")).json()["parameter"]
    assert values(listed["part"])["releaseReason"] == "the case is closed"
    assert (await approved(two, "held", request)).status_code == 202
    assert (await finished(one, "held", request))["status"] == "erased"


async def test_a_hold_of_a_patient_keeps_the_whole_record(world: Api):
    one = admin(world, "chief")
    await record(world, "kept")
    past = parameters(reason="lawsuit", basis="art. 84", until="2020-01-01")
    refused(await one.post("/fhir/Patient/kept/$legal-hold", past), 422, "value")
    body = parameters(reason="lawsuit", basis="art. 84", until=(datetime.now(UTC) + timedelta(days=9)).isoformat())
    assert (await one.post("/fhir/Patient/kept/$legal-hold", body)).status_code == 200
    refused(await one.post("/fhir/Patient/kept/$erase", parameters(reason="asked")), 409, "business-rule")
    old = parameters(expungePreviousVersions=True, expungeDeletedResources=True)
    refused(await one.post("/fhir/Observation/kept-o/$expunge", old), 409, "business-rule")
    refused(await one.post("/fhir/Observation/kept-gone/$expunge", old), 409, "business-rule")
    await one.post("/fhir/Observation/$expunge", old)
    assert len((await world.get("/fhir/Observation/kept-o/_history")).json()["entry"]) == 2
    assert (await world.get("/fhir/Observation/kept-gone")).status_code == 410
    refused(await world.as_("user/*.cruds").post("/fhir/Patient/kept/$legal-hold", body), 403, "forbidden")


async def test_a_hold_that_has_ended_holds_nothing(world: Api, module_database_url: str):
    one = admin(world, "chief")
    await record(world, "lapsed")
    body = parameters(reason="lawsuit", basis="art. 84", until=(datetime.now(UTC) + timedelta(days=9)).isoformat())
    assert (await one.post("/fhir/Patient/lapsed/$legal-hold", body)).status_code == 200
    connection = await asyncpg.connect(module_database_url)
    try:
        await connection.execute("UPDATE fhir.legal_hold SET until = now() WHERE reference = 'Patient/lapsed'")
        await asked(one, "lapsed")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM fhir.erasure")
    finally:
        await connection.close()


async def test_within_the_retention_the_record_is_closed(world: Api, module_database_url: str, home: Path):
    one, two = admin(world, "chief"), admin(world, "lawyer")
    await record(world, "young", datetime.now(UTC).year - 2)
    clinician = world.as_("user/*.cruds", sub="dr", fhirUser="Practitioner/dr")
    preview = values((await one.get("/fhir/Patient/young/$erase-preview")).json()["parameter"])
    assert preview["decision"] == "restrict"
    assert preview["keptUntil"].startswith(str(datetime.now(UTC).year + 13))
    export = await clinician.get("/fhir/$export?_type=Observation", prefer="respond-async")
    await _done(clinician, export.headers["content-location"])
    request = await asked(one, "young")
    assert (await approved(two, "young", request)).status_code == 202
    refused(await clinician.get("/fhir/Patient/young"), 404, "not-found")  # On the next request.
    outcome = await finished(one, "young", request)
    assert outcome["status"] == "restricted", outcome
    for reader in (clinician, world.as_("patient/*.rs", patient="young", fhirUser="Patient/young")):
        for name in ("Patient/young", "Observation/young-o", "Binary/young-b1", "Observation/young-o/_history/1"):
            refused(await reader.get(f"/fhir/{name}"), 404, "not-found")
        assert await reader.ids("Observation?patient=young") == []
        assert await reader.ids("Observation?_id=young-o") == []
        refused(await reader.get("/fhir/Patient/young/$everything"), 404, "not-found")
    for name in ("Binary/young-b2", "Binary/young-b3", "ImagingStudy/young-study", "RelatedPerson/young-rel"):
        refused(await clinician.get(f"/fhir/{name}"), 404, "not-found")
    assert await clinician.ids("Binary?_id=young-b2,young-b4") == ["young-b4"]
    assert await clinician.ids(f"Patient?name={FAMILY}&_id=young") == []
    assert await clinician.ids("Patient?_has:Observation:patient:_id=young-o") == []
    assert '"young-o"' not in (await clinician.get("/fhir/Observation?_id=young-mention&_include=*")).text
    included = await clinician.get("/fhir/Observation?_id=young-mention&_include=Observation:focus")
    assert [item["resource"]["id"] for item in included.json()["entry"]] == ["young-mention"]
    for path in ("Observation/_history?_count=1000", "_history?_count=1000"):
        answer = await clinician.get(f"/fhir/{path}")
        assert answer.status_code == 200
        assert '"young-o"' not in answer.text
    assert (await clinician.get(export.headers["content-location"])).status_code == 404  # It held the record.
    again = await clinician.get("/fhir/$export?_type=Observation,Patient", prefer="respond-async")
    manifest = await _done(clinician, again.headers["content-location"])
    for item in manifest["output"]:
        assert '"young-o"' not in (await clinician.get(item["url"])).text

    # Nothing is added to it; the Group and what two people share go on.
    refused(await clinician.post("/fhir/Observation", observation("Patient/young")), 409, "business-rule")
    assert (await clinician.get("/fhir/Group/young-group")).status_code == 200
    # Administrators see it, and can open it again; the person's own rights are answered on paper.
    assert (await one.get("/fhir/Patient/young")).status_code == 200
    assert await traces(module_database_url, home / "bulk") != {}
    body = parameters(request=request, decision="lift", note="asked by mistake")
    assert (await two.post("/fhir/Patient/young/$erase-decide", body)).status_code == 200
    assert (await clinician.get("/fhir/Observation/young-o")).status_code == 200
    assert (await clinician.post("/fhir/Observation", observation("Patient/young"))).status_code == 201


async def test_an_import_brings_nothing_back(world: Api):
    """Not the old copy of an erased record; lines of others are written."""
    one, two = admin(world, "chief"), admin(world, "lawyer")
    await record(world, "back")
    request = await asked(one, "back")
    assert (await approved(two, "back", request)).status_code == 202
    assert (await finished(one, "back", request))["status"] == "erased"
    lines = [{**observation(f"Patient/{p}"), "id": f"copy-{p}"} for p in ("back", "back-other")]
    body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    sent = {**one.headers, "content-type": "application/fhir+ndjson", **_LATER}
    started = await world.http.post("/fhir/$import", content=body, headers=sent)
    assert started.status_code == 202, started.text
    manifest = await _done(one, started.headers["content-location"])
    assert manifest["refused"] == 1
    assert await world.ids("Observation?_id=copy-back,copy-back-other") == ["copy-back-other"]


async def test_a_stay_in_hospital_is_kept_longer(world: Api):
    year = datetime.now(UTC).year - 20
    await record(world, "stay", year, code="IMP")
    preview = values((await admin(world, "chief").get("/fhir/Patient/stay/$erase-preview")).json()["parameter"])
    assert preview["decision"] == "restrict"
    assert preview["keptUntil"].startswith(str(year + 30))
    await record(world, "walk", year)
    preview = values((await admin(world, "chief").get("/fhir/Patient/walk/$erase-preview")).json()["parameter"])
    assert preview["decision"] == "erase"


async def test_a_namesake_is_named_to_look_at_and_not_changed(world: Api):
    one, two = admin(world, "chief"), admin(world, "lawyer")
    await record(world, "same")
    letter = {
        **observation("Patient/same-other"),
        "id": "same-letter",
        "note": [{"text": f"SYNTHETIC sister of {NUMBER}"}],
    }
    await world.put_ok(letter)
    request = await asked(one, "same")
    assert (await approved(two, "same", request)).status_code == 202
    outcome = await finished(one, "same", request)
    assert "Observation/same-letter" in outcome["toLookAt"]
    assert (await world.get("/fhir/Observation/same-letter")).json()["meta"]["versionId"] == "1"


def test_the_marks_are_what_is_searched():
    assert len(set(MARKS)) == 5
