"""Institutions divide the record (FORAMEN_INSTITUTIONS=separate, ADR 0030). All data SYNTHETIC.

https://hl7.org/fhir/R4/patient-definitions.html#Patient.managingOrganization
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, entry, observation, refused, running
from tests.contract.fhir.bulk_exports import ASYNC, exported, finished, lines, references

SCOPES = "user/*.cruds"


def patient(name: str, institution: str | None) -> dict[str, Any]:
    managed = {"managingOrganization": {"reference": f"Organization/{institution}"}} if institution else {}
    return {"resourceType": "Patient", "id": name, "name": [{"family": f"SYNTHETIC{name}"}], **managed}


def person(api: Api, institution: str | None, **claims: Any) -> Api:
    named = {} if institution is None else {"institution": institution}
    return api.as_(SCOPES, **{"fhirUser": "Practitioner/d", "sub": "d", **named, **claims})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def divided(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """Patients pa (institution a), pb (b) and pn (nobody's), each with resources of the same name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("FORAMEN_INSTITUTIONS", "separate")
        patch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.05")
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.05")
        patch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "1000")
        async with running(module_database_url) as (_, client):
            api = Api(client, client_id="service", sub="service")
            await api.put_ok({"resourceType": "Organization", "id": "a", "name": "SYNTHETIC A"})
            for name, institution in (("pa", "a"), ("pb", "b"), ("pn", None)):
                await fill(api, name, institution)
            yield api


async def fill(api: Api, name: str, institution: str | None) -> None:
    await api.put_ok(patient(name, institution))
    me = {"reference": f"Patient/{name}"}
    await api.put_ok({**observation(f"Patient/{name}"), "id": name})
    await api.put_ok({**observation(f"Patient/{name}", "F02"), "id": name})
    task = {"resourceType": "Task", "id": name, "status": "requested", "intent": "order", "for": me}
    await api.put_ok(task)
    await api.put_ok({**task, "status": "accepted"})
    await api.put_ok({"resourceType": "Binary", "id": name, "contentType": "text/plain", "securityContext": me})
    await api.put_ok({"resourceType": "Device", "id": f"d-{name}", "patient": me})


SEEN = ("Patient", "Observation", "Task", "Binary")


async def sees(api: Api, *names: str) -> None:
    """Every way to the records shows these patients and no other."""
    expected = sorted(names)
    for kind in SEEN:
        known = {"pa", "pb", "pn"}
        assert sorted(known.intersection(await api.ids(f"{kind}?_count=2"))) == expected, kind
        for name in known:
            for path in (f"{kind}/{name}", f"{kind}/{name}/_history", f"{kind}/{name}/_history/1"):
                response = await api.get(f"/fhir/{path}")
                if name in names:
                    assert response.status_code == 200, (path, response.text)
                else:
                    refused(response, 404, "not-found")
            batch = (await api.transaction(entry("GET", f"{kind}/{name}"), kind="batch")).json()
            assert batch["entry"][0]["response"]["status"].startswith("200" if name in names else "404")
    for path in ("_history", *(f"{kind}/_history" for kind in SEEN)):
        found = (await api.get(f"/fhir/{path}?_count=1000")).json().get("entry", [])
        urls = [item["fullUrl"].rsplit("/", 2)[1:] for item in found]
        assert {name for kind, name in urls if kind in SEEN and name in ("pa", "pb", "pn")} == set(names), path
        assert {f"d-{name}" for name in names} == {
            name for kind, name in urls if kind == "Device"
        } or path != "_history"
    for query in (
        *("Observation?patient={}", "Observation?patient={}&code=F02&date=gt2000&_sort=-date", "Observation?code=F02"),
        *(
            "Observation?patient:Patient.name=SYNTHETIC{}",
            "Observation?_id={}&_include=*",
            "Observation?_filter=_id eq {}",
        ),
        *("Observation?patient=pa,pb,pn&code=F02", "Patient?_has:Observation:patient:code=F02", "Patient?_id={}"),
        *("Patient?name=SYNTHETIC{}", "Task?patient={}", "Observation?_id={}&_sort=code", "Device?patient={}"),
        *(
            "Patient?_id={}&_revinclude=Observation:patient",
            "Observation?patient.organization=Organization/a,Organization/b",
        ),
    ):
        for name in ("pa", "pb", "pn"):
            found = await api.ids(query.format(name))
            if "{}" in query:
                assert [item.removeprefix("d-") for item in found] == ([name] if name in names else []), (query, name)
            else:
                assert set(found) <= set(names), query


async def test_a_person_sees_the_own_institutions_patients(divided: Api) -> None:
    await sees(person(divided, "a"), "pa")
    await sees(person(divided, "b", fhirUser="Practitioner/e"), "pb")


async def test_without_institution_nothing_of_patients_is_seen(divided: Api) -> None:
    await sees(person(divided, None))
    await sees(person(divided, None, fhirUser=None))
    assert await person(divided, None).ids("Organization") == ["a"]
    assert (await person(divided, "a").get("/fhir/Organization/a")).status_code == 200


async def test_services_and_who_manages_institutions_see_everybody(divided: Api) -> None:
    await sees(divided, "pa", "pb", "pn")
    await sees(person(divided, None, every_institution=True), "pa", "pb", "pn")


@pytest.mark.parametrize(
    "claims", [{"sub": "somebody"}, {"sub": "app", "client_id": "app", "fhirUser": "RelatedPerson/r"}]
)
async def test_who_is_no_service_is_bounded(divided: Api, claims: dict[str, str]) -> None:
    named = divided.as_("system/*.cruds", **{"client_id": "service", **claims})
    assert await named.ids("Observation") == []


async def test_a_service_with_scopes_of_people_is_bounded(divided: Api) -> None:
    assert await divided.as_("user/*.rs", sub="app", client_id="app").ids("Observation") == []


async def test_nobody_is_shut_out_of_the_own_record(divided: Api) -> None:
    own = divided.as_("patient/*.rs", patient="pn", fhirUser="Patient/pn", sub="pn")
    assert await own.ids("Observation") == ["pn"]
    assert (await own.get("/fhir/Patient/pn")).status_code == 200
    assert (await own.get("/fhir/Patient/pn/_history")).status_code == 200
    launched = divided.as_("patient/*.rs", patient="pb", fhirUser="Practitioner/d", institution="a", sub="d")
    assert await launched.ids("Observation") == []
    refused(await launched.get("/fhir/Patient/pb"), 404, "not-found")


async def test_break_glass_opens_one_record(divided: Api) -> None:
    until = 4_000_000_000
    opened = person(divided, "a", break_glass={"id": "case", "patient": "pb", "until": until})
    assert sorted(await opened.ids("Observation")) == ["pa", "pb"]
    for path in ("Patient/pb", "Observation/pb", "Observation/pb/_history/1", "Patient/pb/$everything"):
        assert (await opened.get(f"/fhir/{path}")).status_code == 200
    refused(await opened.get("/fhir/Observation/pn"), 404, "not-found")


async def test_writes_stay_within_the_institution(divided: Api) -> None:
    own = person(divided, "a")
    created = await own.create(observation("Patient/pa", "F09"))
    assert (await own.delete(f"/fhir/Observation/{created['id']}")).status_code == 204
    for subject in ("Patient/pb", "Patient/pn", "Patient/nobody"):
        refused(await own.post("/fhir/Observation", observation(subject)), 403, "forbidden")
    refused(await own.put("/fhir/Observation/pa", {**observation("Patient/pb"), "id": "pa"}), 403, "forbidden")
    for logical_id in ("pb", "not-there"):
        body = {**observation("Patient/pa"), "id": logical_id}
        refused(await own.put(f"/fhir/Observation/{logical_id}", body), 404, "not-found")
        refused(await own.delete(f"/fhir/Observation/{logical_id}"), 404, "not-found")
        task = {"resourceType": "Task", "id": logical_id, "status": "requested", "intent": "order"}
        refused(await own.put(f"/fhir/Task/{logical_id}", task), 404, "not-found")
    refused(await own.post("/fhir/Patient", patient("x", "b")), 403, "forbidden")
    refused(await own.post("/fhir/Patient", patient("x", None)), 403, "forbidden")
    refused(await own.put("/fhir/Patient/pa", patient("pa", "b")), 403, "forbidden")
    task = {"resourceType": "Task", "status": "requested", "intent": "order"}
    refused(await own.post("/fhir/Task", {**task, "for": {"reference": "Patient/pb"}}), 403, "forbidden")
    group = {"resourceType": "Group", "type": "person", "actual": True}
    both = [{"entity": {"reference": f"Patient/{name}"}} for name in ("pa", "pb")]
    refused(await own.post("/fhir/Group", {**group, "member": both}), 403, "forbidden")
    patched = [{"op": "replace", "path": "/subject/reference", "value": "Patient/pb"}]
    body = {"content_type": "application/json-patch+json"}
    refused(await own.send("PATCH", "/fhir/Observation/pa", patched, **body), 403, "forbidden")
    assert (await divided.get("/fhir/Observation/pa")).json()["subject"]["reference"] == "Patient/pa"


@pytest.mark.parametrize(("institution", "status"), [("a", 200), ("b", 403)])
async def test_a_transaction_brings_a_patient_and_the_record(divided: Api, institution: str, status: int) -> None:
    new = "urn:uuid:4fcb1d2a-0000-4000-8000-000000000001"
    bundle = (
        entry("POST", "Patient", {**patient("x", institution)}, full_url=new),
        entry("POST", "Observation", observation(new, "NEW")),
    )
    answer = await person(divided, "a").transaction(*bundle)
    assert answer.status_code == status, answer.text


async def test_no_audit_event_of_others_is_seen(divided: Api) -> None:
    await divided.get("/fhir/Patient/pb")
    await divided.get("/fhir/Observation?_count=1")
    auditor = divided.as_("user/AuditEvent.rs", fhirUser="Practitioner/d", sub="d", institution="a")
    events = (await auditor.get("/fhir/AuditEvent?_count=1000")).json().get("entry", [])
    assert events  # Of pa there are some.
    assert not [item for item in events if "pb" in str(item["resource"].get("entity"))]


async def _moved(api: Api, institution: str) -> None:
    await api.put_ok(patient("moving", institution))


async def test_a_change_of_the_institution_counts_at_once_everywhere(divided: Api) -> None:
    await _moved(divided, "a")
    await divided.put_ok({**observation("Patient/moving", "MOVE"), "id": "moving"})
    one, two = person(divided, "a"), person(divided, "b")
    export = await finished(one, await one.get("/fhir/$export?_type=Observation,Patient", **ASYNC))
    held = references(await lines(one, export.json()))
    assert {"Observation/moving", "Patient/moving", "Observation/pa"} <= held
    assert not held & {"Observation/pb", "Patient/pb", "Observation/pn"}
    later = await one.get("/fhir/Observation?code=MOVE&_elements=status", **ASYNC)
    put_off = await finished_async(one, later)
    assert "moving" in put_off.text
    for before, after, institution in ((one, two, "b"), (two, one, "a")):
        await _moved(divided, institution)
        for reader, seen in ((before, False), (after, True)):
            for query in ("Observation?code=MOVE", "Observation?patient=moving&code=MOVE", "Patient?_id=moving"):
                assert await reader.ids(query) == (["moving"] if seen else []), query
            total = (await reader.get("/fhir/Observation?code=MOVE&_summary=count")).json()["total"]
            assert total == int(seen)
            for path in (
                "Patient/moving",
                "Observation/moving",
                "Observation/moving/_history",
                "Patient/moving/$everything",
            ):
                assert (await reader.get(f"/fhir/{path}")).status_code == (200 if seen else 404), path
            told = (await reader.get("/fhir/Observation/_history?_count=1000")).text
            assert ("Observation/moving" in told) == seen
        # What was exported and put off while the patient was a's.
        for item in export.json()["output"]:
            answer = await one.get(item["url"])
            assert answer.status_code == (404 if institution == "b" else 200), institution
        answer = await one.get(later.headers["content-location"])
        assert answer.status_code == (404 if institution == "b" else 200)
    held = references(await lines(two, await exported(two, "$export?_type=Observation,Patient,Task,Binary")))
    assert {reference.partition("/")[2] for reference in held} == {"pb"}


async def finished_async(api: Api, started: httpx.Response) -> httpx.Response:
    for _ in range(400):
        found = await api.get(started.headers["content-location"])
        if found.status_code != 202:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("the request does not end")


async def test_a_file_that_nobody_noted_is_not_shown_to_who_is_bounded(divided: Api) -> None:
    url = (await exported(divided, "$export?_type=Patient"))["output"][0]["url"]
    bounded = divided.as_("system/*.cruds foramen/admin", sub="root", client_id="cli", fhirUser="Practitioner/d")
    refused(await bounded.get(url), 404, "not-found")


async def test_an_import_needs_a_token_without_bounds(divided: Api) -> None:
    body = b'{"resourceType":"Basic"}\n'
    bounded = divided.as_("user/*.cruds foramen/admin", sub="root", client_id="cli", institution="a")
    answer = await bounded.post("/fhir/$import", body, content_type="application/fhir+ndjson")
    refused(answer, 403, "forbidden")


async def test_the_wall_is_named_where_a_search_is_explained(divided: Api) -> None:
    admin = divided.as_("user/*.rs foramen/admin", sub="d", fhirUser="Practitioner/d", institution="a")
    answer = await admin.get("/fhir/Observation?code=F02&_explain=true")
    assert answer.status_code == 200
    assert "institution" in answer.text


async def test_shared_is_as_ever(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORAMEN_INSTITUTIONS", raising=False)
    async with running(database_url) as (_, client):
        api = Api(client)
        await fill(api, "pn", None)
        await sees(person(api, None), "pn")
