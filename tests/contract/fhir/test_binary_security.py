"""A Binary is seen by those only who see the resource that its securityContext names. All data SYNTHETIC.

https://hl7.org/fhir/R4/binary.html#security
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tests.contract.fhir.api import Api, entry, observation, patient_resource, refused, running

_CONTEXTS = {
    "b-open": None,
    "b-p1": "Patient/p1",
    "b-p2": "Patient/p2",
    "b-p1-version": "Patient/p1/_history/1",
    "b-o1": "Observation/o1",
    "b-later": "DocumentReference/not-yet",
    "b-away": "https://elsewhere.example/fhir/Patient/p1",
}
_ALL = sorted(_CONTEXTS)


def _binary(logical_id: str, context: str | None) -> dict[str, Any]:
    named = {"securityContext": {"reference": context}} if context else {}
    return {"resourceType": "Binary", "id": logical_id, "contentType": "text/plain", **named, "data": "U1lOVEhFVElD"}


@pytest.fixture
async def api(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setenv("FORAMEN_FHIR_CONSENT", "true")
    async with running(database_url) as (_, client):
        api = Api(client)
        for patient in ("p1", "p2"):
            await api.put_ok({**patient_resource(), "id": patient})
        await api.put_ok({**observation("Patient/p1"), "id": "o1"})
        for logical_id, context in _CONTEXTS.items():
            await api.put_ok(_binary(logical_id, context))
            await api.put_ok({**_binary(logical_id, context), "data": "VFdP"})
        yield api


def _consent(patient: str, *actors: str, **provision: Any) -> dict[str, Any]:
    scope = {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}
    role = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}]}
    named = {"actor": [{"role": role, "reference": {"reference": actor}} for actor in actors]}
    return {
        "resourceType": "Consent",
        "id": f"consent-{patient}",
        "status": "active",
        "scope": {"coding": [scope]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": f"Patient/{patient}"},
        "policyRule": {"text": "SYNTHETIC"},
        "provision": {"type": "deny", **named, **provision},
    }


async def _sees(api: Api, expected: list[str], *, in_histories: bool = True) -> None:
    """Every way to a Binary shows the same ones, never more; histories may show fewer."""
    assert sorted(await api.ids("Binary")) == expected
    assert sorted(await api.ids("Binary?_count=2")) == expected
    total = (await api.get("/fhir/Binary?_summary=count")).json()["total"]
    assert total == len(expected)
    for name in _ALL:
        seen = name in expected
        for suffix in ("", "/_history/1", "/_history"):
            for accept in ("application/fhir+json", "text/plain, application/fhir+json;q=0.1"):
                response = await api.get(f"/fhir/Binary/{name}{suffix}", accept=accept)
                if seen and (in_histories or not suffix.endswith("_history")):
                    assert response.status_code == 200, (name, suffix, response.text)
                elif not seen:
                    refused(response, 404, "not-found")
        batch = (await api.transaction(entry("GET", f"Binary/{name}"), kind="batch")).json()
        assert batch["entry"][0]["response"]["status"].startswith("200" if seen else "404"), name
    for path in ("Binary/_history", "_history"):
        found = (await api.get(f"/fhir/{path}?_count=1000")).json().get("entry", [])
        names = {item["fullUrl"].rsplit("/", 1)[1] for item in found if "/Binary/" in item["fullUrl"]}
        assert names <= set(expected), path
        assert not in_histories or sorted(names) == expected, path


async def test_who_may_see_everything_sees_all(api: Api) -> None:
    await _sees(api, _ALL)


async def test_a_patient_sees_the_binaries_of_their_own_record(api: Api) -> None:
    # What names an Observation would have to be looked up for each Binary: it is refused.
    await _sees(api.as_("patient/*.cruds", patient="p1"), ["b-p1", "b-p1-version"])
    await _sees(api.as_("patient/*.cruds", patient="p2"), ["b-p2"])


async def test_a_scope_for_the_context_is_needed(api: Api) -> None:
    await _sees(api.as_("user/Binary.rs"), ["b-open"])
    await _sees(api.as_("user/Binary.rs user/Patient.r"), ["b-open", "b-p1", "b-p1-version", "b-p2"])
    await _sees(api.as_("user/Binary.rs user/Observation.s"), ["b-o1", "b-open"])
    # All Binaries, but of the patients one alone.
    mixed = api.as_("user/Binary.rs patient/Patient.rs", patient="p1")
    await _sees(mixed, ["b-open", "b-p1", "b-p1-version"], in_histories=False)
    refused(await api.as_("patient/Binary.rs", patient="p1").get("/fhir/Binary/b-p1"), 404, "not-found")


async def test_a_closed_record_closes_its_binaries(api: Api) -> None:
    await api.put_ok(_consent("p1", "Practitioner/dr1"))
    closed = api.as_("user/*.cruds", fhirUser="Practitioner/dr1")
    await _sees(closed, ["b-open", "b-p2"])
    other = api.as_("user/*.cruds", fhirUser="Practitioner/dr2")
    await _sees(other, _ALL)
    for method, body in (("PUT", _binary("b-p1", "Patient/p1")), ("DELETE", b"")):
        refused(await closed.send(method, "/fhir/Binary/b-p1", body), 404, "not-found")
    assert (await other.get("/fhir/Binary/b-p1")).status_code == 200


async def test_who_may_not_see_the_patient_itself_does_not_see_what_names_it(api: Api) -> None:
    types = {"class": [{"system": "http://hl7.org/fhir/resource-types", "code": "Patient"}]}
    await api.put_ok(_consent("p1", "Practitioner/dr1", **types))
    await _sees(api.as_("user/*.cruds", fhirUser="Practitioner/dr1"), ["b-open", "b-p2"])


async def test_the_context_of_each_version_counts(api: Api) -> None:
    await api.put_ok(_binary("b-p1", "Patient/p2"))
    first, second = (api.as_("patient/*.rs", patient=name) for name in ("p1", "p2"))
    refused(await first.get("/fhir/Binary/b-p1"), 404, "not-found")
    assert (await first.get("/fhir/Binary/b-p1/_history/1")).status_code == 200
    refused(await second.get("/fhir/Binary/b-p1/_history/1"), 404, "not-found")
    assert (await second.get("/fhir/Binary/b-p1")).status_code == 200
    await api.delete("/fhir/Binary/b-p1")
    assert (await second.get("/fhir/Binary/b-p1")).status_code == 410
    refused(await first.get("/fhir/Binary/b-p1"), 404, "not-found")
    refused(await api.as_("user/Binary.rs").get("/fhir/Binary/b-p1"), 404, "not-found")


async def test_a_patients_token_writes_into_its_own_record(api: Api) -> None:
    own = api.as_("patient/*.cruds", patient="p1")
    await own.create(_binary("x", "Patient/p1"))
    for context in (None, "Patient/p2", "Observation/o1"):
        refused(await own.post("/fhir/Binary", _binary("x", context)), 403, "forbidden")


async def test_everything_and_export_hold_what_the_caller_sees(api: Api) -> None:
    document = {
        "resourceType": "DocumentReference",
        "id": "d1",
        "status": "current",
        "subject": {"reference": "Patient/p1"},
        "content": [
            {"attachment": {"url": f"Binary/{name}"}} for name in ("b-p1", "b-p2", "b-of-d1", "b-open", "b-o1")
        ],
    }
    await api.put_ok(document)
    await api.put_ok(_binary("b-of-d1", "DocumentReference/d1"))
    found = (await api.get("/fhir/Patient/p1/$everything")).json()["entry"]
    names = {item["resource"]["id"] for item in found if item["resource"]["resourceType"] == "Binary"}
    assert {"b-p1", "b-open", "b-of-d1"} <= names <= {"b-p1", "b-open", "b-o1", "b-of-d1"}
    await api.put_ok(_consent("p1", "Practitioner/dr1"))
    closed = api.as_("system/*.rs", fhirUser="Practitioner/dr1")
    assert await _exported(closed) == {"b-open", "b-p2"}
    assert await _exported(api) == {*_ALL, "b-of-d1"}


async def _exported(api: Api) -> set[str]:
    started = await api.get("/fhir/$export?_type=Binary", prefer="respond-async")
    assert started.status_code == 202, started.text
    status_url = started.headers["content-location"]
    for _ in range(400):
        status = await api.get(status_url)
        if status.status_code == 200:
            break
        await asyncio.sleep(0.02)
    lines = [
        orjson.loads(line)
        for output in status.json()["output"]
        for line in (await api.get(output["url"])).content.splitlines()
    ]
    return {line["id"] for line in lines if line["resourceType"] == "Binary"}
