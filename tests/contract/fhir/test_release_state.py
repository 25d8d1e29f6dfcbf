"""What an AI made is invisible to a patient, on every path, until a practitioner verified it (clinical model §6.3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from terminology.codes import AI_GENERATED
from terminology.systems import PROVENANCE_AGENT
from tests.contract.fhir.api import Api, ai_observation, entry, observation, patient_resource, refused, running
from tests.contract.fhir.bulk_exports import exported, lines
from tests.contract.fhir.test_signoff import SURGEON, provenance

TAGGED = {"meta": {"tag": [AI_GENERATED.coding()]}}
PREDICTION = {"outcome": {"text": "SYNTHETIC"}, "probabilityDecimal": 0.1}
LOINC_REPORT = {"coding": [{"system": "http://loinc.org", "code": "24968-0"}]}
SUBJECT = {"subject": {"reference": "Patient/a"}}
SEEN = {"Observation/by-hand", "Observation/signed", "DiagnosticReport/signed", "CarePlan/signed", "Patient/a"}
HIDDEN = {
    "Observation/draft",
    "DiagnosticReport/draft",
    "CarePlan/option",
    "RiskAssessment/draft",
    "RiskAssessment/final",
    "DetectedIssue/found",
    "Provenance/of-the-model",
}
TYPES = ("Observation", "DiagnosticReport", "CarePlan", "RiskAssessment", "DetectedIssue", "Provenance")


def drafts() -> list[dict[str, Any]]:
    """What the pipeline writes, SYNTHETIC."""
    report = {"resourceType": "DiagnosticReport", "status": "partial", "code": LOINC_REPORT, **SUBJECT}
    report |= {
        "effectiveDateTime": "2026-11-22",
        "result": [{"reference": "Observation/draft"}, {"reference": "Observation/by-hand"}],
        "imagingStudy": [{"reference": "ImagingStudy/1"}],
    }
    plan = {"resourceType": "CarePlan", "status": "draft", "intent": "option", **SUBJECT}
    plan["author"] = {"reference": "Device/model"}
    risk = {"resourceType": "RiskAssessment", **SUBJECT, "method": {"text": "SYNTHETIC"}}
    risk |= {"basis": [{"reference": "Observation/by-hand"}], "prediction": [PREDICTION]}
    issue = {"resourceType": "DetectedIssue", "status": "preliminary", "patient": {"reference": "Patient/a"}}
    made = {
        "resourceType": "Provenance",
        "target": [{"reference": "Observation/draft"}, {"reference": "Patient/a"}],
        "recorded": "2026-11-22T08:00:00Z",
        "activity": {"text": "SYNTHETIC"},
        "agent": [
            {
                "type": {"coding": [{"system": PROVENANCE_AGENT, "code": "author"}]},
                "who": {"reference": "Device/model"},
            }
        ],
        "entity": [{"role": "source", "what": {"reference": "ImagingStudy/1"}}],
    }
    return [
        {**ai_observation("Patient/a", code="AI"), "id": "draft"},
        {**ai_observation("Patient/a", code="AI"), "id": "signed"},
        {**report, **TAGGED, "id": "draft"},
        {**report, **TAGGED, "id": "signed"},
        {**plan, **TAGGED, "id": "option"},
        {**plan, **TAGGED, "id": "signed"},
        {**risk, **TAGGED, "id": "draft", "status": "preliminary"},
        {**risk, **TAGGED, "id": "final", "status": "preliminary"},
        {**issue, **TAGGED, "id": "found"},
        {**made, **TAGGED, "id": "of-the-model"},
    ]


async def sign(surgeon: Api, reference: str, status: str) -> None:
    """Verify as a practitioner does: the status and the Provenance in one transaction."""
    found = (await surgeon.get(f"/fhir/{reference}")).json()
    more = {"intent": "plan", "author": {"reference": "Practitioner/surgeon"}} if reference.startswith("Care") else {}
    answer = await surgeon.transaction(
        entry("PUT", reference, {**found, **more, "status": status}),
        entry("POST", "Provenance", provenance(reference)),
    )
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def everyone(module_database_url: str, home: Path) -> AsyncIterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(home))
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "100")
        async with running(module_database_url) as (_, client):
            api = Api(client)
            await api.put_ok({**patient_resource(), "id": "a"})
            await api.put_ok({**observation("Patient/a", code="HAND"), "id": "by-hand"})
            for resource in drafts():
                await api.put_ok(resource)
            surgeon = api.as_("user/*.cruds", **SURGEON)
            for reference, status in (
                ("Observation/signed", "final"),
                ("DiagnosticReport/signed", "preliminary"),
                ("CarePlan/signed", "active"),
                ("RiskAssessment/final", "final"),
            ):
                await sign(surgeon, reference, status)
            yield api


@pytest.fixture
def patient(everyone: Api) -> Api:
    """The patient, signed in."""
    return everyone.as_("patient/*.rs", patient="a", fhirUser="Patient/a", sub="ill")


@pytest.fixture
def surgeon(everyone: Api) -> Api:
    """A practitioner with a token of the same patient."""
    return everyone.as_("patient/*.rs", patient="a", **SURGEON)


def references(answer: Any) -> set[str]:
    """`Type/id` of every resource of the tested kinds that an answer holds, wherever it lies."""
    if isinstance(answer, list):
        return {name for item in answer for name in references(item)}
    if not isinstance(answer, dict):
        return set()
    own = (
        {f"{answer['resourceType']}/{answer['id']}"}
        if answer.get("resourceType") in TYPES and "id" in answer
        else set()
    )
    return own | references(list(answer.values()))


PATHS = [
    *TYPES,
    "?_type=" + ",".join(TYPES),
    "Patient?_revinclude=*",
    "Observation?_revinclude=Provenance:target&_revinclude=DiagnosticReport:result",
    "DiagnosticReport?_include=DiagnosticReport:result",
    "DiagnosticReport?_include=*",
    "Observation/$lastn?patient=Patient/a&code=AI,HAND&max=99",
    "Observation?status=preliminary,final,registered&_sort=-_lastUpdated",
    "Patient/a/$everything",
    "Patient/a/$everything?_count=1000",
    "Patient/a/Observation",
    "Patient/a/*?_count=1000",
    "_history?_count=1000",
    "Observation/_history?_count=1000",
]


@pytest.mark.parametrize("path", PATHS)
async def test_no_path_shows_a_patient_what_nobody_verified(
    everyone: Api, patient: Api, surgeon: Api, path: str
) -> None:
    mine, theirs = await patient.get(f"/fhir/{path}"), await surgeon.get(f"/fhir/{path}")
    assert (mine.status_code, theirs.status_code) == (200, 200), mine.text
    shown, all_there = references(mine.json()), references(theirs.json())
    assert not shown & HIDDEN
    assert all_there & (HIDDEN | SEEN) - HIDDEN == shown & (HIDDEN | SEEN)
    if path.endswith("_history?_count=1000"):
        entries = [e for e in mine.json()["entry"] if e["fullUrl"].endswith(("Observation/signed", "CarePlan/signed"))]
        assert {e["resource"]["status"] for e in entries} <= {"final", "active"}
    if "total" in mine.json() and not mine.json().get("entry"):
        assert mine.json()["total"] == 0


async def test_reads_answer_as_if_it_were_not_there(patient: Api, surgeon: Api) -> None:
    for reference in sorted(HIDDEN):
        kind = reference.partition("/")[0]
        for suffix in ("", "/_history/1", "/_history", "/$meta"):
            missing = await patient.get(f"/fhir/{kind}/no-such{suffix}")
            found = await patient.get(f"/fhir/{reference}{suffix}")
            assert (found.status_code, found.json()) == (404, missing.json()), (reference, suffix)
            assert (await surgeon.get(f"/fhir/{reference}{suffix}")).status_code == 200
    for reference in sorted(SEEN):
        assert (await patient.get(f"/fhir/{reference}")).status_code == 200


async def test_the_versions_before_the_signature_stay_hidden(patient: Api, surgeon: Api) -> None:
    for reference in ("Observation/signed", "DiagnosticReport/signed", "CarePlan/signed"):
        refused(await patient.get(f"/fhir/{reference}/_history/1"), 404, "not-found")
        assert (await patient.get(f"/fhir/{reference}/_history/2")).status_code == 200
        assert len((await patient.get(f"/fhir/{reference}/_history")).json()["entry"]) == 1
        assert len((await surgeon.get(f"/fhir/{reference}/_history")).json()["entry"]) == 2


async def test_neither_counts_nor_chains_tell(patient: Api, surgeon: Api) -> None:
    for path, own, others in (
        ("Observation?_summary=count", 2, 3),
        ("Observation?code=AI&_count=1&_total=accurate", 1, 2),
        ("Patient?_has:Observation:subject:_id=draft&_summary=count", 0, 1),
        ("Patient?_has:RiskAssessment:subject:_id=final&_summary=count", 0, 1),
        ("DiagnosticReport?result:Observation._id=draft&_summary=count", 0, 2),
        ("DiagnosticReport?result:Observation._id=by-hand&_summary=count", 1, 2),
        ("Provenance?target:Observation._id=draft&_summary=count", 0, 1),
    ):
        found = [(await api.get(f"/fhir/{path}")).json()["total"] for api in (patient, surgeon)]
        assert found == [own, others], path


async def test_bundles_and_exports_leave_it_out(patient: Api) -> None:
    answer = await patient.transaction(*(entry("GET", name) for name in sorted(HIDDEN)), kind="batch")
    assert {item["response"]["status"][:3] for item in answer.json()["entry"]} == {"404"}
    rows = await lines(patient, await exported(patient, f"Patient/$export?_type={','.join(TYPES)}"))
    found = {f"{row['resourceType']}/{row['id']}" for kind in rows.values() for row in kind}
    assert not found & HIDDEN
    assert found >= SEEN - {"Patient/a"}


async def test_a_relative_sees_no_more_and_a_service_sees_all(everyone: Api) -> None:
    relative = everyone.as_("patient/*.rs", patient="a", fhirUser="RelatedPerson/r")
    assert set(await relative.ids("Observation")) == {"by-hand", "signed"}
    service = everyone.as_("system/*.rs")
    assert set(await service.ids("Observation")) == {"by-hand", "signed", "draft"}


async def test_a_signature_releases_at_once(everyone: Api, patient: Api) -> None:
    await everyone.put_ok({**ai_observation("Patient/a", code="LATE"), "id": "late"})
    assert await patient.ids("Observation?code=LATE") == []
    await sign(everyone.as_("user/*.cruds", **SURGEON), "Observation/late", "final")
    assert await patient.ids("Observation?code=LATE") == ["late"]
    assert (await patient.get("/fhir/Observation/late")).status_code == 200
    withdrawn = {**(await everyone.get("/fhir/Observation/late")).json(), "status": "entered-in-error"}
    answer = await everyone.as_("user/*.cruds", **SURGEON).transaction(
        entry("PUT", "Observation/late", withdrawn), entry("POST", "Provenance", provenance("Observation/late"))
    )
    assert answer.status_code == 200, answer.text
    assert await patient.ids("Observation?code=LATE") == []
    assert (await patient.get("/fhir/Observation/late")).status_code == 404
