"""`ImagingStudy/$closed-records` tells gateways alone whose studies are closed, and to whom. All data SYNTHETIC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.fhir.api import Api, observation, patient_resource, refused, running
from tests.contract.fhir.test_consent import _actor, _consent

URL = "/fhir/ImagingStudy/$closed-records"
LABEL = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
GATEWAY = "system/Patient.rs system/ImagingStudy.crus system/Task.rs system/Observation.rs foramen/gateway"


@pytest.fixture
async def api(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setenv("FORAMEN_FHIR_CONSENT", "true")
    async with running(database_url) as (_, client):
        api = Api(client)
        await api.put_ok({**patient_resource(), "id": "co1"})
        await api.put_ok({**observation("Patient/co1"), "id": "o"})
        for name, labels in (("plain", []), ("secret", [LABEL])):
            meta = {"meta": {"security": labels}} if labels else {}
            await api.put_ok({**study(name), **meta})
        yield api


def study(name: str) -> dict[str, Any]:
    uid = {"plain": "1.2.3", "secret": "1.2.4"}[name]
    named = [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}]
    return {
        "resourceType": "ImagingStudy",
        "id": name,
        "status": "available",
        "identifier": named,
        "subject": {"reference": "Patient/co1"},
    }


async def told(gateway: Api) -> list[dict[str, Any]]:
    answer = await gateway.get(URL)
    assert answer.status_code == 200, answer.text
    return answer.json().get("parameter", [])


async def test_only_a_gateway_may_ask(api: Api):
    for scope in ("system/*.cruds", "system/*.cruds foramen/admin", "user/*.cruds", "patient/*.rs", "openid"):
        refused(await api.as_(scope, patient="co1").get(URL), 403, "forbidden")
    assert (await api.as_(GATEWAY).get(URL)).status_code == 200


async def test_what_is_not_about_studies_is_not_told(api: Api):
    classes = [{"system": "http://hl7.org/fhir/resource-types", "code": "Observation"}]
    await api.put_ok(_consent(**{"class": classes}, actor=[_actor("Practitioner/d")]))
    assert await told(api.as_(GATEWAY)) == []


async def test_rules_are_told_with_their_limits_and_permits(api: Api):
    permit = {"type": "permit", "actor": [_actor("Practitioner/e")]}
    period = {"start": "2020-01-01T00:00:00Z"}
    await api.put_ok(_consent(actor=[_actor("Organization/a")], period=period, provision=[permit]))
    (rule,) = await told(api.as_(GATEWAY))
    assert rule == {
        "name": "denial",
        "part": [
            {"name": "patient", "valueReference": {"reference": "Patient/co1"}},
            {"name": "actor", "valueUri": "Organization/a"},
            {"name": "begin", "valueDecimal": 1577836800000000},
            {"name": "permit", "part": [{"name": "actor", "valueUri": "Practitioner/e"}]},
        ],
    }


async def test_a_label_names_the_studies_that_have_it(api: Api):
    await api.put_ok(_consent(securityLabel=[LABEL]))
    gateway = api.as_(GATEWAY)
    (rule,) = await told(gateway)
    assert [part["valueUri"] for part in rule["part"] if part["name"] == "study"] == ["urn:oid:1.2.4"]
    assert {"name": "limited", "valueBoolean": True} in rule["part"]
    labelled = gateway.as_(GATEWAY)
    await labelled.put_ok({**study("plain"), "meta": {"security": [LABEL]}})
    (rule,) = await told(gateway)
    assert len([part for part in rule["part"] if part["name"] == "study"]) == 2


async def test_what_the_caller_has_is_not_sent_again(api: Api):
    gateway = api.as_(GATEWAY)
    first = await gateway.get(URL)
    tag = first.headers["etag"]
    again = await gateway.get(URL, **{"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    await api.put_ok(_consent(actor=[_actor("Practitioner/d")]))
    changed = await gateway.get(URL, **{"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def test_a_record_closed_to_everybody_is_known_to_a_gateway_as_somebodys(api: Api):
    """What it does not know as the patient's it could not hide; anything else of the record it does not see."""
    await api.put_ok(_consent())
    gateway, other = api.as_(GATEWAY), api.as_("system/*.cruds")
    for path, seen in (("Patient/co1", 200), ("ImagingStudy/plain", 200), ("Observation/o", 404)):
        assert (await gateway.get(f"/fhir/{path}")).status_code == seen
        assert (await other.get(f"/fhir/{path}")).status_code == 404
