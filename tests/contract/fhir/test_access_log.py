"""Who saw my record: what is told, to whom, and what is never told. SYNTHETIC data.

docs/api/access-log.md
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.fhir.api import EVERYTHING, Api, entry, observation, patient_resource, refused, running

_DEFINITION = Path(__file__).parents[3] / "fhir_server" / "operations" / "definitions" / "patient-access-log.json"
_PHYSICIAN = {"sub": "dr-chen", "fhirUser": "Practitioner/chen", "institution": "north", "client_id": "result-review"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def record(module_api: Api) -> Api:
    """Two patients with an Observation each, a physician and an institution; nobody has looked yet."""
    for name in ("mine", "other"):
        await module_api.put_ok({**patient_resource(), "id": name})
        await module_api.put_ok({**observation(f"Patient/{name}"), "id": f"o-{name}"})
    practitioner = {
        "resourceType": "Practitioner",
        "id": "chen",
        "name": [{"family": "SYNTHETIC-Chen", "given": ["D"]}],
    }
    await module_api.put_ok(practitioner)
    await module_api.put_ok({"resourceType": "Organization", "id": "north", "name": "SYNTHETIC North Hospital"})
    return module_api


def patient(api: Api, name: str = "mine", scope: str = "patient/*.rs") -> Api:
    return api.as_(scope, patient=name, fhirUser=f"Patient/{name}", sub=f"account-{name}")


async def log(api: Api, query: str = "", name: str = "mine") -> list[dict[str, Any]]:
    answer = await api.get(f"/fhir/Patient/{name}/$access-log{query}")
    assert answer.status_code == 200, answer.text
    return [item["resource"] for item in answer.json().get("entry", [])]


def told(event: dict[str, Any]) -> tuple[str, str, str, str]:
    """What, who by role, display, app."""
    agent = event["agent"][0]
    return (
        event["subtype"][0]["code"],
        agent["role"][0]["text"],
        agent.get("who", {}).get("display", ""),
        agent.get("name", ""),
    )


async def test_a_read_tells_who_from_where(record: Api):
    physician = record.as_("user/*.rs", **_PHYSICIAN)
    await physician.get("/fhir/Observation/o-mine")
    event = (await log(patient(record)))[0]
    assert told(event) == ("read", "practitioner", "D SYNTHETIC-Chen", "result-review")
    assert event["agent"][1]["who"] == {"reference": "Organization/north", "display": "SYNTHETIC North Hospital"}
    assert event["outcome"] == "0"
    assert {e["what"]["reference"] for e in event["entity"]} == {"Patient/mine", "Observation/o-mine"}
    assert event["meta"]["security"][0]["code"] == "REDACTED"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("Observation?code=F01", "search"),
        ("Observation?patient=Patient/mine", "search"),
        ("Observation?patient=Patient/mine&_sort=-date&_include=Observation:subject&_total=accurate", "search"),
        ("Patient?gender=female", "search"),
        ("Patient/mine/Observation", "search"),
        ("?_type=Observation,Patient", "search"),
        ("Observation/_history", "search"),
        ("Observation/o-mine/_history", "read"),
        ("Observation/o-mine/_history/1", "read"),
        ("Observation/$lastn?patient=Patient/mine&code=F01", "read"),
        ("Patient/mine/$everything", "read"),
    ],
)
async def test_whatever_showed_the_record_is_an_access(record: Api, path: str, kind: str):
    before = len(await log(patient(record), "?_count=1000"))
    physician = record.as_("user/*.rs", **_PHYSICIAN)
    assert (await physician.get(f"/fhir/{path}")).status_code == 200
    events = await log(patient(record), "?_count=1000")
    mine = [event for event in events if told(event)[2] == "D SYNTHETIC-Chen"]
    assert told(mine[0])[:2] == (kind, "practitioner")
    assert len(events) >= before + 1
    assert "other" not in str(mine[0])


async def test_a_batch_of_reads_is_an_access(record: Api):
    physician = record.as_("user/*.rs", **_PHYSICIAN)
    await physician.transaction(entry("GET", "Observation/o-mine"), entry("GET", "Patient?_id=other"), kind="batch")
    (event,) = [e for e in await log(patient(record)) if told(e)[0] == "group"]
    assert "Chen" in told(event)[2]
    assert "other" not in str(event)


async def test_a_transaction_that_also_reads_and_a_search_put_off_are_accesses(record: Api):
    physician = record.as_("user/*.cruds", **{**_PHYSICIAN, "client_id": "mixed"})
    task = {"resourceType": "Basic", "code": {"text": "SYNTHETIC"}}
    answer = await physician.transaction(entry("POST", "Basic", task), entry("GET", "Observation?patient=mine"))
    assert answer.status_code == 200, answer.text
    assert [told(e)[0] for e in await log(patient(record)) if told(e)[3] == "mixed"] == ["group"]
    late = record.as_("user/*.rs", **{**_PHYSICIAN, "client_id": "late"})
    answer = await late.get("/fhir/Observation?patient=mine", prefer="respond-async")
    assert answer.status_code == 202
    for _ in range(100):
        found = await late.get(answer.headers["content-location"].removeprefix("http://127.0.0.1:8000"))
        if found.status_code == 200:
            break
        await asyncio.sleep(0.1)
    assert [told(e)[0] for e in await log(patient(record)) if told(e)[3] == "late"] == ["search"]


async def test_what_showed_nothing_of_the_record_is_none(record: Api):
    physician = record.as_("user/*.rs", **_PHYSICIAN)
    before = await log(patient(record), "?_count=1000")
    await physician.get("/fhir/Observation?code=nothing")
    await physician.get("/fhir/Observation/o-other")
    await physician.get("/fhir/Practitioner/chen")
    await physician.get("/fhir/Observation?patient=Patient/mine&_summary=count")
    # The log was looked at once more, and that is told.
    after = await log(patient(record), "?_count=1000")
    assert {e["id"] for e in after} - {e["id"] for e in before} == {after[0]["id"]}
    assert told(after[0]) == ("read", "patient", "yourself", "test-client")


async def test_a_refused_look_names_nobody_but_a_refused_patient_read_does(record: Api):
    without = record.as_("user/Medication.r", **{**_PHYSICIAN, "client_id": "nosy"})
    refused(await without.get("/fhir/Observation/o-mine"), 403, "forbidden")
    refused(await without.get("/fhir/Patient/mine"), 403, "forbidden")
    events = [e for e in await log(patient(record)) if told(e)[3] == "nosy"]
    assert [e["outcome"] for e in events] == ["8"]


async def test_other_patients_and_accounts_are_never_told(record: Api):
    """Somebody else who acts in this record is 'another person'; a search over both names only this patient."""
    parent = record.as_("user/*.rs", fhirUser="Patient/other", sub="account-other", client_id="family")
    await parent.get("/fhir/Observation/o-mine")
    await record.as_("user/*.rs", **_PHYSICIAN).get("/fhir/Observation")
    answer = await patient(record).get("/fhir/Patient/mine/$access-log?_count=1000")
    assert "other" not in answer.text.replace("another person", "").replace('"other"', "")
    assert "account-" not in answer.text
    assert "dr-chen" not in answer.text
    assert any(told(e["resource"])[1] == "another person" for e in answer.json()["entry"])


async def test_an_ai_run_and_a_bulk_export_are_told(record: Api):
    worker = record.as_("system/Observation.rs", client_id="foramen-worker", sub="foramen-worker")
    await worker.get("/fhir/Observation/o-mine")
    assert told((await log(patient(record)))[0])[:2] == ("ai-run", "AI service")
    before = {e["id"] for e in await log(patient(record), "?_count=1000")}
    answer = await record.get("/fhir/$export?_type=Observation", prefer="respond-async")
    assert answer.status_code == 202, answer.text
    new = [e for e in await log(patient(record), "?_count=1000") if e["id"] not in before]
    (export,) = [e for e in new if told(e)[0] == "export"]
    assert "may have held this one" in export["outcomeDesc"]
    assert "entity" not in export


async def test_pages_newest_first_and_dates(record: Api):
    for _ in range(5):
        await record.get("/fhir/Patient/mine")
    whole = await log(record.as_(f"{EVERYTHING} foramen/admin"), "?_count=1000")
    url: str | None = "/fhir/Patient/mine/$access-log?_count=3"
    seen: list[dict[str, Any]] = []
    while url is not None and len(seen) < 9:
        body = (await patient(record).get(url)).json()
        assert len(body["entry"]) <= 3
        seen += [e["resource"] for e in body["entry"]]
        url = next((link["url"] for link in body["link"] if link["relation"] == "next"), None)
    times = [event["recorded"] for event in seen]
    assert times == sorted(times, reverse=True)
    assert len({event["id"] for event in seen}) == len(seen) == 9
    early = whole[-1]["recorded"]
    assert await log(patient(record), "?end=2020-01-01") == []
    assert await log(patient(record), "?start=2099-01-01") == []
    assert len(await log(patient(record), f"?_count=1000&start={early.replace('+', '%2B')}")) >= len(whole)


@pytest.mark.parametrize(
    "scope",
    [
        "user/*.rs",
        "user/AuditEvent.s",
        "user/AuditEvent.r",
        "system/*.cruds",
        "system/AuditEvent.c",
        "patient/*.rs",
        "patient/AuditEvent.s",
        "patient/Observation.rs",
        "patient/AuditEvent.r",
    ],
)
async def test_other_tokens_are_refused(record: Api, scope: str):
    """The finding: an app that a clinician opened for a patient has patient/*.s, and asked for who looked."""
    claims = {"patient": "mine", **_PHYSICIAN} if scope.startswith("patient/") else {}
    refused(await record.as_(scope, **claims).get("/fhir/Patient/mine/$access-log"), 403, "forbidden")
    # And no less so of a Patient who does not exist.
    refused(await record.as_(scope, **claims).get("/fhir/Patient/nobody/$access-log"), 403, "forbidden")


@pytest.mark.parametrize("scope", ["patient/Observation.rs", "patient/AuditEvent.r", "user/AuditEvent.rs"])
async def test_a_patients_own_sign_in_needs_the_patient_scope_too(record: Api, scope: str):
    refused(await patient(record, scope=scope).get("/fhir/Patient/mine/$access-log"), 403, "forbidden")


async def test_a_relative_reads_the_log_of_whom_the_sign_in_is_for(record: Api):
    relative = record.as_("patient/*.rs", patient="mine", fhirUser="RelatedPerson/mother", sub="mother")
    assert (await relative.get("/fhir/Patient/mine/$access-log")).status_code == 200
    refused(await relative.get("/fhir/Patient/other/$access-log"), 404, "not-found")


@pytest.mark.parametrize("scope", ["user/AuditEvent.rs", "user/AuditEvent.cruds", "system/AuditEvent.s"])
async def test_who_reads_the_audit_may_ask_for_any_patient(record: Api, scope: str):
    claims = {"sub": "auditor", "fhirUser": "Practitioner/auditor"} if scope.startswith("user/") else {}
    auditor = record.as_(scope, **claims)
    await record.get("/fhir/Patient/mine")
    assert (await log(auditor))[0]["meta"]["security"][0]["code"] == "REDACTED"
    refused(await auditor.get("/fhir/Patient/nobody/$access-log"), 404, "not-found")


async def test_an_auditor_of_one_institution_sees_what_its_people_did(record: Api):
    await record.as_("user/*.rs", **_PHYSICIAN).get("/fhir/Observation/o-mine")
    await record.as_("user/*.rs", **{**_PHYSICIAN, "institution": "south"}).get("/fhir/Observation/o-mine")
    auditor = record.as_("user/AuditEvent.rs?agent=Organization/north", sub="auditor", fhirUser="Practitioner/auditor")
    found = [event["agent"][1]["who"]["reference"] for event in await log(auditor, "?_count=1000")]
    assert found
    assert set(found) == {"Organization/north"}
    everywhere = await log(record.as_("system/AuditEvent.s"), "?_count=1000")
    assert {e["agent"][1]["who"]["reference"] for e in everywhere if len(e["agent"]) > 1} >= {"Organization/south"}


async def test_an_institutions_wall_holds_for_its_auditor(database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORAMEN_INSTITUTIONS", "separate")
    async with running(database_url) as (_, client):
        api = Api(client, sub="test-client")
        for name in ("north", "south"):
            await api.put_ok({"resourceType": "Organization", "id": name, "name": "SYNTHETIC"})
            managed = {"managingOrganization": {"reference": f"Organization/{name}"}}
            await api.put_ok({**patient_resource(), "id": f"of-{name}", **managed})
        await api.put_ok({**patient_resource(), "id": "of-nobody"})
        auditor = api.as_("user/AuditEvent.rs", sub="auditor", fhirUser="Practitioner/auditor", institution="north")
        assert await log(auditor, name="of-north")
        for name in ("of-south", "of-nobody", "nobody"):
            refused(await auditor.get(f"/fhir/Patient/{name}/$access-log"), 404, "not-found")


async def test_another_patient_does_not_exist(record: Api):
    one = refused(await patient(record).get("/fhir/Patient/other/$access-log"), 404, "not-found")
    none = refused(await patient(record).get("/fhir/Patient/nobody/$access-log"), 404, "not-found")
    assert one["issue"] == none["issue"]
    refused(await record.as_("foramen/admin").get("/fhir/Patient/nobody/$access-log"), 404, "not-found")


@pytest.mark.parametrize(
    "query", ["?start=x", "?_count=0", "?_count=x", "?_cursor=x", "?unknown=1", "?start=2026&start=2027"]
)
async def test_bad_parameters_are_refused(record: Api, query: str):
    answer = await patient(record).get(f"/fhir/Patient/mine/$access-log{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["issue"][0]["code"] in ("value", "not-supported", "invalid", "structure")


async def test_the_operation_is_declared(record: Api):
    rest = (await record.get("/fhir/metadata")).json()["rest"][0]
    (own,) = [item for item in rest["resource"] if item["type"] == "Patient"]
    assert {"access-log"} <= {operation["name"] for operation in own["operation"]}


async def test_its_definition_is_valid_and_fits_the_route(record: Api):
    definition = json.loads(_DEFINITION.read_text(encoding="utf-8"))
    outcome = (await record.post("/fhir/OperationDefinition/$validate", definition)).json()
    assert not [issue for issue in outcome["issue"] if issue["severity"] in ("error", "fatal")], outcome
    rest = (await record.get("/fhir/metadata")).json()["rest"][0]
    operations = next(item for item in rest["resource"] if item["type"] == "Patient")["operation"]
    assert {"name": definition["code"], "definition": definition["url"]} in operations
    assert {p["name"] for p in definition["parameter"] if p["use"] == "in"} == {"start", "end", "_count"}
