"""Consents hide what patients refuse from those they name, in every interaction. All data SYNTHETIC.

https://hl7.org/fhir/R4/consent.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from fhir_server.app import FhirService
from foramen.kernel.settings import Settings
from tests.builders.tokens import ORIGIN, verifier
from tests.contract.fhir.api import Api, entry, observation, patient_resource, refused, running

_RESTRICTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
_USER = "user/*.cruds"


@pytest.fixture
async def api(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setenv("FORAMEN_FHIR_CONSENT", "true")
    async with running(database_url) as (_, client):
        api = Api(client)
        for patient in ("co1", "co2"):
            await api.put_ok({**patient_resource(), "id": patient})
            for place, labels in enumerate(([], [_RESTRICTED])):
                resource = {**observation(f"Patient/{patient}"), "id": f"{patient}-{place}"}
                await api.put_ok({**resource, **({"meta": {"security": labels}} if labels else {})})
            await api.put_ok({**observation(f"Patient/{patient}", "F09"), "id": f"{patient}-gone"})
            await api.delete(f"/fhir/Observation/{patient}-gone")
            await api.put_ok(_condition(patient))
        yield api


def _condition(patient: str) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "id": f"{patient}-c",
        "subject": {"reference": f"Patient/{patient}"},
        "code": {"text": "SYNTHETIC"},
    }


def _consent(patient: str = "co1", logical_id: str = "co", **provision: Any) -> dict[str, Any]:
    scope = {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}
    category = {"system": "http://loinc.org", "code": "59284-0"}
    return {
        "resourceType": "Consent",
        "id": logical_id,
        "status": "active",
        "scope": {"coding": [scope]},
        "category": [{"coding": [category]}],
        "patient": {"reference": f"Patient/{patient}"},
        "policyRule": {"text": "SYNTHETIC"},
        "provision": {"type": "deny", **provision},
    }


def _actor(reference: str) -> dict[str, Any]:
    role = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}]}
    return {"role": role, "reference": {"reference": reference}}


def _dr(api: Api, name: str = "dr1") -> Api:
    return api.as_(_USER, fhirUser=f"Practitioner/{name}")


async def test_a_closed_record_does_not_exist_for_the_one_it_names(api: Api):
    await api.put_ok(_consent(actor=[_actor("Practitioner/dr1")]))
    closed, other = _dr(api), _dr(api, "dr2")
    assert sorted(await closed.ids("Observation")) == ["co2-0", "co2-1"]
    assert sorted(await other.ids("Observation")) == ["co1-0", "co1-1", "co2-0", "co2-1"]
    assert (await closed.get("/fhir/Observation?_summary=count")).json()["total"] == 2
    assert await closed.ids("Patient") == ["co2"]
    for path in (
        "Patient/co1",
        "Observation/co1-0",
        "Observation/co1-gone",
        "Observation/co1-0/_history/1",
        "Observation/co1-0/_history",
        "Observation/co1-gone/_history",
        "Patient/co1/$everything",
        "Patient/co1/$meta",
    ):
        refused(await closed.get(f"/fhir/{path}"), 404, "not-found")
        assert (await other.get(f"/fhir/{path}")).status_code in (200, 410), path
    history = (await closed.get("/fhir/Observation/_history")).json()["entry"]
    assert {item["fullUrl"].rsplit("/", 1)[1] for item in history} == {"co2-0", "co2-1", "co2-gone"}
    everything = (await closed.get("/fhir/_history?_count=1000")).json()["entry"]
    named = {item["fullUrl"].split("/fhir/")[1] for item in everything if "AuditEvent" not in item["fullUrl"]}
    assert {name for name in named if "co1" in name} == set()
    assert {"Patient/co2", "Observation/co2-0"} <= named
    assert await closed.ids("Observation?patient.gender=female&code=F01") == await closed.ids("Observation?code=F01")
    assert await closed.ids("Patient?_has:Observation:patient:code=F01") == ["co2"]
    included = (await closed.get("/fhir/Patient?_id=co1,co2&_revinclude=Observation:patient")).json()["entry"]
    assert {item["resource"]["id"] for item in included} == {"co2", "co2-0", "co2-1"}
    lastn = (await closed.get("/fhir/Observation/$lastn?patient=co1,co2&code=F01")).json()
    assert {item["resource"]["subject"]["reference"] for item in lastn["entry"]} == {"Patient/co2"}
    batch = await closed.transaction(entry("GET", "Observation/co1-0"), entry("GET", "Observation"), kind="batch")
    assert batch.json()["entry"][0]["response"]["status"].startswith("404")
    assert "co1" not in str(batch.json()["entry"][1])


async def test_nor_can_it_be_written(api: Api):
    await api.put_ok(_consent(actor=[_actor("Practitioner/dr1")]))
    closed = _dr(api)
    changed = {**observation("Patient/co1", "F99"), "id": "co1-0"}
    refused(await closed.put("/fhir/Observation/co1-0", changed), 404, "not-found")
    refused(await closed.delete("/fhir/Observation/co1-0"), 404, "not-found")
    assert (await api.get("/fhir/Observation/co1-0")).json()["meta"]["versionId"] == "1"


async def test_changes_of_the_consent_count_at_once(api: Api):
    closed = _dr(api)
    assert len(await closed.ids("Observation")) == 4
    consent = _consent(actor=[_actor("Practitioner/dr1")])
    for _ in range(3):
        await api.put_ok(consent)
        assert len(await closed.ids("Observation")) == 2
        await api.put_ok({**consent, "status": "inactive"})
        assert len(await closed.ids("Observation")) == 4
    await api.put_ok(consent)
    await api.delete("/fhir/Consent/co")
    assert len(await closed.ids("Observation")) == 4


async def test_another_process_is_told(api: Api, database_url: str):
    service = FhirService(Settings(port=8000), database_url, verifier())
    await service.start()
    transport = httpx.ASGITransport(app=Starlette(routes=[Mount("/fhir", service.app)]))
    try:
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            there = _dr(Api(client))
            assert len(await there.ids("Observation")) == 4
            await api.put_ok(_consent(actor=[_actor("Practitioner/dr1")]))
            for _ in range(100):
                if len(await there.ids("Observation")) == 2:
                    break
            assert len(await there.ids("Observation")) == 2
    finally:
        await service.stop()


async def test_limited_to_a_class(api: Api):
    kind = {"system": "http://hl7.org/fhir/resource-types", "code": "Observation"}
    await api.put_ok(_consent(actor=[_actor("Practitioner/dr1")], **{"class": [kind]}))
    closed = _dr(api)
    assert sorted(await closed.ids("Observation")) == ["co2-0", "co2-1"]
    assert sorted(await closed.ids("Condition")) == ["co1-c", "co2-c"]
    assert (await closed.get("/fhir/Patient/co1")).status_code == 200


async def test_limited_to_a_label(api: Api):
    await api.put_ok(_consent(actor=[_actor("Practitioner/dr1")], securityLabel=[_RESTRICTED]))
    closed = _dr(api)
    assert sorted(await closed.ids("Observation")) == ["co1-0", "co2-0", "co2-1"]
    assert sorted(await closed.ids("Observation?code=F01&patient=co1")) == ["co1-0"]
    refused(await closed.get("/fhir/Observation/co1-1"), 404, "not-found")
    assert (await closed.get("/fhir/Observation/co1-0")).status_code == 200


async def test_everybody_but_those_permitted_and_the_patient(api: Api):
    permit = {"type": "permit", "actor": [_actor("Practitioner/dr1")]}
    await api.put_ok(_consent(provision=[permit]))
    assert len(await _dr(api).ids("Observation")) == 4
    assert len(await _dr(api, "dr2").ids("Observation")) == 2
    own = api.as_("patient/*.rs", patient="co1", fhirUser="Patient/co1")
    assert sorted(await own.ids("Observation")) == ["co1-0", "co1-1"]
    stranger = api.as_("patient/*.rs", patient="co1", fhirUser="Practitioner/dr2")
    assert await stranger.ids("Observation") == []


_COLLEAGUES = {"reference": {"identifier": {"system": "urn:synthetic:staff", "value": "7"}}}
_PURPOSE = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HRESCH"}


@pytest.mark.parametrize(
    "limit",
    [
        {"actor": [{**_actor("Practitioner/none"), **_COLLEAGUES}]},
        {"purpose": [_PURPOSE]},
        {"class": [{"system": "urn:ietf:bcp:13", "code": "application/hl7-cda+xml"}]},
        {"data": [{"meaning": "instance", "reference": {"reference": "Observation/co1-1"}}]},
    ],
    ids=str,
)
async def test_a_permit_that_says_more_than_is_read_permits_nothing(api: Api, limit: dict[str, Any]):
    """Else who meant one colleague, research or a document would open the record to everybody."""
    await api.put_ok(_consent(provision=[{"type": "permit", **limit}]))
    closed = _dr(api)
    assert sorted(await closed.ids("Observation")) == ["co2-0", "co2-1"]
    refused(await closed.get("/fhir/Patient/co1"), 404, "not-found")
    refused(await closed.get("/fhir/Patient/co1/$everything"), 404, "not-found")


async def test_a_role_and_a_service_can_be_named(api: Api):
    role = {"resourceType": "PractitionerRole", "id": "role", "practitioner": {"reference": "Practitioner/dr3"}}
    await api.put_ok(role)
    await api.put_ok(_consent(actor=[_actor("PractitionerRole/role"), _actor("Device/robot")]))
    assert len(await _dr(api, "dr3").ids("Observation")) == 2
    assert len(await _dr(api, "dr4").ids("Observation")) == 4
    assert len(await api.as_("system/*.rs", client_id="robot").ids("Observation")) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"status": "proposed"},
        {"scope": {"coding": [{"code": "research"}]}},
        {"provision": {"type": "permit"}},
        {"provision": {"type": "deny", "period": {"end": "2020-01-01"}}},
    ],
)
async def test_what_is_no_refusal(api: Api, change: dict[str, Any]):
    await api.put_ok({**_consent(), **change})
    assert len(await _dr(api).ids("Observation")) == 4


async def test_off_by_default(module_api: Api):
    await module_api.put_ok({**patient_resource(), "id": "co9"})
    await module_api.put_ok(_consent("co9", "co9", actor=[_actor("Practitioner/dr1")]))
    assert (await _dr(module_api).get("/fhir/Patient/co9")).status_code == 200
