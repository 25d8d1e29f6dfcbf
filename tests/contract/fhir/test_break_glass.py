"""A token with break-glass reads the one record whose patient denies it, in every interaction, and each call says so.

Tokens are made with the claims of the authorization server (tests/contract/smart/test_break_glass.py). Data SYNTHETIC.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from foramen.identity.security_event import SecurityEvent
from foramen.kernel.access_context import BreakGlass
from foramen.kernel.errors import NotAuthenticatedError
from tests.builders.tokens import token, verifier
from tests.contract.fhir.api import Api, ai_observation, entry, observation, patient_resource, refused, running

CASE = "6b1f3d38-0c2e-4c0b-9d0e-1f5a5e8f0a01"
_USER = "user/*.cruds"
_RESTRICTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
_SCOPE = {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}
pytestmark = pytest.mark.requirement("identity#break-glass")


def _claim(patient: str = "bg1", **more: Any) -> dict[str, Any]:
    return {"id": CASE, "patient": patient, "until": int(time.time()) + 300, **more}


def _dr(api: Api, scope: str = _USER, **claims: Any) -> Api:
    return api.as_(scope, fhirUser="Practitioner/dr1", sub="anna", **claims)


def _consent(patient: str, logical_id: str, **provision: Any) -> dict[str, Any]:
    return {
        "resourceType": "Consent",
        "id": logical_id,
        "status": "active",
        "scope": {"coding": [_SCOPE]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": f"Patient/{patient}"},
        "policyRule": {"text": "SYNTHETIC"},
        "provision": {"type": "deny", **provision},
    }


@pytest.fixture(scope="module")
async def api(module_database_url: str) -> AsyncIterator[Api]:
    """Two patients whose records are closed to everybody, one closed in part, one open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_FHIR_CONSENT", "true")
        async with running(module_database_url) as (_, client):
            api = Api(client)
            for patient in ("bg1", "bg2", "bg3", "bg4"):
                await api.put_ok({**patient_resource(), "id": patient})
                await api.put_ok({**observation(f"Patient/{patient}"), "id": f"{patient}-o"})
                await api.put_ok({**observation(f"Patient/{patient}", "F02"), "id": f"{patient}-o"})
            labelled = {**observation("Patient/bg3"), "id": "bg3-r", "meta": {"security": [_RESTRICTED]}}
            await api.put_ok(labelled)
            shared = {**observation("Patient/bg1", "F07"), "id": "shared", "performer": [{"reference": "Patient/bg2"}]}
            await api.put_ok(shared)
            await api.put_ok(_consent("bg1", "bg1-c"))
            await api.put_ok(_consent("bg2", "bg2-c"))
            await api.put_ok(_consent("bg3", "bg3-c", securityLabel=[_RESTRICTED]))
            yield api


PATHS = (
    "Patient/bg1",
    "Observation/bg1-o",
    "Observation/bg1-o/_history/1",
    "Observation/bg1-o/_history",
    "Patient/bg1/$everything",
    "Patient/bg1/$meta",
)


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_found_by_its_id_is_shown(api: Api, path: str):
    refused(await _dr(api).get(f"/fhir/{path}"), 404, "not-found")
    answer = await _dr(api, break_glass=_claim()).get(f"/fhir/{path}")
    assert answer.status_code == 200, answer.text
    refused(await _dr(api, break_glass=_claim("bg2")).get(f"/fhir/{path}"), 404, "not-found")


SEARCHES = (
    ("Observation?code=F02", {"bg3-o", "bg4-o"}, {"bg1-o"}),
    ("Observation?patient=bg1,bg2,bg4&code=F02", {"bg4-o"}, {"bg1-o"}),
    ("Observation?code=F02&_sort=-date&_count=1", {"bg3-o", "bg4-o"}, {"bg1-o"}),
    ("Patient", {"bg3", "bg4"}, {"bg1"}),
    ("Patient?_has:Observation:patient:code=F02", {"bg3", "bg4"}, {"bg1"}),
    ("Observation?patient.gender=female&code=F02", {"bg3-o", "bg4-o"}, {"bg1-o"}),
    ("Consent", {"bg3-c"}, {"bg1-c"}),
)


@pytest.mark.parametrize(("path", "open_to_all", "more"), SEARCHES)
async def test_searches_chains_and_counts_show_one_record_more(
    api: Api, path: str, open_to_all: set[str], more: set[str]
):
    """Decided in the query, before paging: the total and each page are those of what may be seen."""
    for caller, expected in (
        (_dr(api), open_to_all),
        (_dr(api, break_glass=_claim()), open_to_all | more),
        (_dr(api, break_glass=_claim("nobody")), open_to_all),
    ):
        found = [name for name in await caller.ids(path) if name not in ("bg3-r", "shared")]
        assert sorted(found) == sorted(expected)
    separator = "&" if "?" in path else "?"
    counted = [
        (await caller.get(f"/fhir/{path}{separator}_summary=count")).json()["total"]
        for caller in (_dr(api), _dr(api, break_glass=_claim()))
    ]
    assert counted[1] - counted[0] == len(more)


async def test_includes_and_histories_show_one_record_more(api: Api):
    emergency = _dr(api, break_glass=_claim())
    for path in ("Patient?_id=bg1,bg2,bg4&_revinclude=Observation:patient", "Observation/_history", "_history"):
        for caller, expected in ((_dr(api), {"bg4"}), (emergency, {"bg1", "bg4"})):
            bundle = (await caller.get(f"/fhir/{path}{'&' if '?' in path else '?'}_count=1000")).json()
            names = [item["fullUrl"].rsplit("/", 1)[1] for item in bundle["entry"]]
            found = {name[:3] for name in names if name.startswith("bg") and "AuditEvent" not in name} - {"bg3"}
            assert found == expected, path
    batch = await emergency.transaction(entry("GET", "Observation/bg1-o"), entry("GET", "Patient/bg2"), kind="batch")
    assert [item["response"]["status"][:3] for item in batch.json()["entry"]] == ["200", "404"]


async def test_what_lies_in_another_closed_record_too_stays_closed(api: Api):
    emergency = _dr(api, break_glass=_claim())
    refused(await emergency.get("/fhir/Observation/shared"), 404, "not-found")
    assert await emergency.ids("Observation?code=F07") == []


async def test_a_half_closed_record_opens_too(api: Api):
    refused(await _dr(api).get("/fhir/Observation/bg3-r"), 404, "not-found")
    assert (await _dr(api, break_glass=_claim("bg3")).get("/fhir/Observation/bg3-r")).status_code == 200


async def test_it_grants_no_scope(api: Api):
    narrow = _dr(api, "user/Patient.r", break_glass=_claim())
    assert (await narrow.get("/fhir/Patient/bg1")).status_code == 200
    refused(await narrow.get("/fhir/Observation/bg1-o"), 403, "forbidden")
    reader = _dr(api, "user/*.rs", break_glass=_claim())
    changed = {**observation("Patient/bg1", "F99"), "id": "bg1-o"}
    refused(await reader.put("/fhir/Observation/bg1-o", changed), 403, "forbidden")
    refused(await reader.delete("/fhir/Observation/bg1-o"), 403, "forbidden")
    refused(await reader.get("/fhir/$reindex"), 403, "forbidden")
    bound = api.as_("patient/*.rs", patient="bg4", fhirUser="Practitioner/dr1", break_glass=_claim())
    assert await bound.ids("Observation?code=F02") == ["bg4-o"]
    refused(await bound.get("/fhir/Patient/bg1"), 404, "not-found")
    granular = _dr(api, "user/Observation.rs?code=F01", break_glass=_claim())
    refused(await granular.get("/fhir/Observation/bg1-o"), 404, "not-found")


async def test_nor_the_release_state(api: Api):
    await api.put_ok({**patient_resource(), "id": "bg5"})
    await api.put_ok({**ai_observation("Patient/bg5"), "id": "bg5-ai"})
    own = api.as_("patient/*.rs", patient="bg5", fhirUser="Patient/bg5", break_glass=_claim("bg5"))
    refused(await own.get("/fhir/Observation/bg5-ai"), 404, "not-found")


async def test_it_counts_from_one_request_to_the_next(api: Api):
    """Callers with and without it share nothing that the process remembers."""
    plain, emergency = _dr(api), _dr(api, break_glass=_claim())
    for _ in range(3):
        assert (await emergency.get("/fhir/Patient/bg1")).status_code == 200
        refused(await plain.get("/fhir/Patient/bg1"), 404, "not-found")


async def test_every_call_says_so_and_is_found_by_its_id(api: Api):
    case = str(uuid.uuid4())
    emergency = _dr(api, break_glass=_claim(id=case))
    await emergency.get("/fhir/Patient/bg1")
    await emergency.get("/fhir/Patient/bg2")
    await emergency.ids("Observation?patient=bg1&code=F02")
    await api.as_(_USER, fhirUser="Practitioner/dr1", sub="plain").get("/fhir/Patient/bg4")
    auditor = api.as_("user/AuditEvent.rs", sub="root")
    found = (await auditor.get(f"/fhir/AuditEvent?policy=urn:uuid:{case}&_sort=date")).json()["entry"]
    events = [item["resource"] for item in found]
    assert [event["subtype"][0]["code"] for event in events] == ["read", "read", "search-type"]
    assert [event["outcome"] for event in events] == ["0", "4", "0"]
    for event in events:
        coding = event["purposeOfEvent"][0]["coding"][0]
        assert (coding["system"], coding["code"]) == ("http://terminology.hl7.org/CodeSystem/v3-ActReason", "BTG")
        assert event["agent"][0]["policy"] == [f"urn:uuid:{case}"]
        assert event["agent"][0]["altId"] == "anna"
    named = [event["id"] for event in events if "Patient/bg1" in str(event["entity"])]
    assert len(named) == 2
    assert sorted(await auditor.ids(f"AuditEvent?policy=urn:uuid:{case}&patient=bg1")) == sorted(named)
    # Who treats learns nothing of it: `*` leaves the audit trail out, and a scope that names it is for auditors.
    refused(await _dr(api).get(f"/fhir/AuditEvent?policy=urn:uuid:{case}"), 403, "forbidden")
    others = (await auditor.get("/fhir/AuditEvent?altid=plain")).json()["entry"]
    assert ["purposeOfEvent" in item["resource"] for item in others] == [False]


async def test_the_event_of_a_start_is_taken_whether_there_is_such_a_patient_or_not(api: Api):
    """Else its delivery would be tried again for ever."""
    event = SecurityEvent("break-glass", "0", account="anna", patient="no-such-patient", break_glass=CASE)
    writer = api.as_("system/AuditEvent.c")
    assert (await writer.post("/fhir/AuditEvent", event.resource(datetime.now(UTC)))).status_code == 201


async def test_a_job_does_not_take_it_along(api: Api):
    """What runs later runs without it: it may have ended by then."""
    emergency = _dr(api, break_glass=_claim())
    started = await emergency.get("/fhir/Observation?code=F02", prefer="respond-async")
    assert started.status_code == 202, started.text
    status = started.headers["content-location"].removeprefix("http://127.0.0.1:8000")
    for _ in range(200):
        answer = await emergency.get(status)
        if answer.status_code != 202:
            break
        await asyncio.sleep(0.02)
    assert answer.status_code == 200
    assert "bg4-o" in answer.text
    assert "bg1-o" not in answer.text


@pytest.mark.parametrize("path", ["bg1-c", "bg2-c"])
async def test_what_started_by_it_can_be_ended_by_a_consent_alone_too(api: Api, path: str):
    """The Consent itself lies in the closed record; it is read under it, and unchanged by it."""
    expected = 200 if path == "bg1-c" else 404
    assert (await _dr(api, break_glass=_claim()).get(f"/fhir/Consent/{path}")).status_code == expected


@pytest.mark.parametrize(
    "claim",
    [
        "bg1",
        [],
        {},
        {"id": CASE, "patient": "bg1"},
        {"id": CASE, "until": 2_000_000_000},
        {"patient": "bg1", "until": 2_000_000_000},
        {"id": "", "patient": "bg1", "until": 2_000_000_000},
        {"id": CASE, "patient": "", "until": 2_000_000_000},
        {"id": CASE, "patient": ["bg1", "bg2"], "until": 2_000_000_000},
        {"id": CASE, "patient": "bg1", "until": "for ever"},
        {"id": CASE, "patient": "bg1", "until": int(time.time()) - 1},
    ],
)
async def test_a_claim_that_is_not_understood_makes_the_token_invalid(api: Api, claim: Any):
    answer = await _dr(api, break_glass=claim).get("/fhir/Patient/bg4")
    assert answer.status_code == 401


def test_a_token_is_good_no_longer_than_the_emergency():
    checked = verifier()
    soon = token("user/*.rs", break_glass={**_claim(), "until": time.time() + 1})
    assert checked.verify(soon).break_glass == BreakGlass(CASE, "bg1")
    with pytest.MonkeyPatch.context() as patch:
        later = time.time() + 2
        patch.setattr(time, "time", lambda: later)
        with pytest.raises(NotAuthenticatedError):
            checked.verify(soon)
