"""An export holds what its caller may see, and is for tokens that reach it.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.fhir.api import Api, observation, refused, running
from tests.contract.fhir.bulk_exports import (
    ASYNC,
    exported,
    finished,
    lines,
    patients,
    references,
)


async def test_access(bulk_api: Api) -> None:
    await patients(bulk_api, "mine-1", "theirs-1")
    for name in ("mine-1", "theirs-1"):
        await bulk_api.put_ok({**observation(f"Patient/{name}"), "id": f"o-{name}"})
    narrow = bulk_api.as_("system/Patient.rs")
    assert {item["type"] for item in (await exported(narrow, "$export"))["output"]} == {"Patient"}
    refused(await narrow.get("/fhir/$export?_type=Observation", **ASYNC), 403, "forbidden")
    refused(await bulk_api.as_("system/Patient.c").get("/fhir/$export", **ASYNC), 403, "forbidden")
    own = bulk_api.as_("patient/*.rs", patient="mine-1")
    found = references(await lines(own, await exported(own, "$export?_type=Patient,Observation")))
    assert found == {"Patient/mine-1", "Observation/o-mine-1"}
    filtered = await exported(own, "$export?_type=Observation&_typeFilter=Observation%3Fcode%3DF01")
    assert references(await lines(own, filtered)) == {"Observation/o-mine-1"}
    assert (await bulk_api.http.get("/fhir/$export")).status_code == 401


async def test_status_and_files_are_for_tokens_that_reach_what_was_exported(bulk_api: Api) -> None:
    response = await bulk_api.get("/fhir/$export?_type=Patient,Observation", **ASYNC)
    manifest = (await finished(bulk_api, response)).json()
    urls = [item["url"] for item in manifest["output"]] + [response.headers["content-location"]]
    assert len(urls) >= 3
    for narrow in (
        bulk_api.as_("patient/Observation.rs", patient="mine-1"),
        bulk_api.as_("patient/*.cruds", patient="mine-1"),
        bulk_api.as_("system/Observation.rs"),
        bulk_api.as_("openid"),
    ):
        for url in urls:
            refused(await narrow.get(url), 403, "forbidden")


async def test_status_and_files_are_their_owners_alone(bulk_api: Api) -> None:
    response = await bulk_api.get("/fhir/$export?_type=Patient", **ASYNC)
    manifest = (await finished(bulk_api, response)).json()
    url, status = manifest["output"][0]["url"], response.headers["content-location"]
    other = bulk_api.as_("system/*.rs", sub="somebody", client_id="another")
    for path in (url, status):
        assert (await bulk_api.http.get(path)).status_code == 401
        refused(await other.get(path), 404, "not-found")
    refused(await other.delete(status), 404, "not-found")
    refused(await bulk_api.as_("system/Observation.rs").get(url), 403, "forbidden")
    administrator = bulk_api.as_("foramen/admin", sub="root", client_id="cli")
    assert (await administrator.get(url)).status_code == 200
    name = url.rpartition("/")[2]
    job, place, expires, signature, _ = name.split(".")
    for forged in (
        f"{job}.1.{expires}.{signature}.ndjson",
        f"{job}.{place}.{int(expires) + 60}.{signature}.ndjson",
        "x.ndjson",
        "..%2f..%2fsecrets",
    ):
        refused(await bulk_api.get(f"/fhir/$bulk-file/{forged}"), 404, "not-found")


async def test_what_a_consent_hides_is_not_exported(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    for name, value in (("HOME", str(tmp_path)), ("FHIR_CONSENT", "true"), ("FHIR_EXPORT_SETTLE_S", "0.1")):
        monkeypatch.setenv(f"FORAMEN_{name}", value)
    terminology = "http://terminology.hl7.org/CodeSystem"
    recipient = {"coding": [{"system": f"{terminology}/v3-ParticipationType", "code": "IRCP"}]}
    consent = {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"system": f"{terminology}/consentscope", "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": "Patient/closed"},
        "policyRule": {"text": "SYNTHETIC"},
        "provision": {"type": "deny", "actor": [{"role": recipient, "reference": {"reference": "Practitioner/dr"}}]},
    }
    async with running(database_url) as (_, client):
        api = Api(client)
        await patients(api, "open", "closed")
        for name in ("open", "closed"):
            await api.put_ok({**observation(f"Patient/{name}"), "id": f"o-{name}"})
        await api.create(consent)
        named, other = (api.as_("user/*.rs", sub=name, fhirUser=f"Practitioner/{name}") for name in ("dr", "else"))
        for path in ("$export?_type=Patient,Observation", "Patient/$export?_type=Patient,Observation"):
            assert references(await lines(named, await exported(named, path))) == {"Patient/open", "Observation/o-open"}
            assert len(references(await lines(other, await exported(other, path)))) == 4
        filtered = "$export?_type=Observation&_typeFilter=Observation%3Fcode%3DF01"
        assert references(await lines(named, await exported(named, filtered))) == {"Observation/o-open"}
