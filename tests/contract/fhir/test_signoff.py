"""Nobody finalises AI output but a practitioner who says so in the same transaction."""

from __future__ import annotations

from typing import Any

import pytest

from terminology.codes import AI_GENERATED
from terminology.systems import PROVENANCE_AGENT
from tests.contract.fhir.api import Api, ai_observation, entry, refused

SURGEON = {"fhirUser": "Practitioner/surgeon", "sub": "surgeon"}
TAGGED = {"meta": {"tag": [AI_GENERATED.coding()]}}
MADE = {
    "Observation": ai_observation("Patient/1"),
    "DiagnosticReport": {
        "resourceType": "DiagnosticReport",
        "code": {"coding": [{"system": "http://loinc.org", "code": "24968-0"}]},
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2026-11-22",
        "result": [{"reference": "Observation/1"}],
        "imagingStudy": [{"reference": "ImagingStudy/1"}],
        **TAGGED,
    },
    "CarePlan": {
        "resourceType": "CarePlan",
        "intent": "plan",
        "subject": {"reference": "Patient/1"},
        "author": {"reference": "Practitioner/surgeon"},
        **TAGGED,
    },
}


def provenance(*targets: str, who: str = "Practitioner/surgeon", kind: str = "verifier") -> dict[str, Any]:
    return {
        "resourceType": "Provenance",
        "target": [{"reference": target} for target in targets],
        "recorded": "2026-11-22T08:00:00Z",
        "agent": [{"type": {"coding": [{"system": PROVENANCE_AGENT, "code": kind}]}, "who": {"reference": who}}],
    }


async def proposal(api: Api) -> dict[str, Any]:
    return await api.create(ai_observation("Patient/1"))


async def test_verified_update_passes(module_api: Api) -> None:
    found = await proposal(module_api)
    reference = f"Observation/{found['id']}"
    surgeon = module_api.as_("user/*.cruds", **SURGEON)
    final = {**found, "status": "final"}
    answer = await surgeon.transaction(
        entry("PUT", reference, final, ifMatch='W/"1"'), entry("POST", "Provenance", provenance(reference))
    )
    assert answer.status_code == 200, answer.text
    assert (await module_api.get(f"/fhir/{reference}")).json()["status"] == "final"


async def test_verified_create_by_urn_uuid_passes(module_api: Api) -> None:
    surgeon = module_api.as_("user/*.cruds", **SURGEON)
    plan = {
        "resourceType": "CarePlan",
        "status": "active",
        "intent": "plan",
        "subject": {"reference": "Patient/1"},
        "author": {"reference": "Practitioner/surgeon"},
        **TAGGED,
    }
    urn = "urn:uuid:5b3c9f5e-0000-4000-8000-000000000001"
    answer = await surgeon.transaction(
        entry("POST", "CarePlan", plan, urn), entry("POST", "Provenance", provenance(urn))
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "sent",
    [
        provenance("Observation/other"),
        provenance("{self}", who="Practitioner/another"),
        provenance("{self}", kind="author"),
        None,
    ],
)
async def test_without_the_right_provenance_it_is_refused(module_api: Api, sent: dict[str, Any] | None) -> None:
    found = await proposal(module_api)
    reference = f"Observation/{found['id']}"
    surgeon = module_api.as_("user/*.cruds", **SURGEON)
    entries = [entry("PUT", reference, {**found, "status": "final"})]
    if sent is not None:
        targets = [{"reference": t["reference"].replace("{self}", reference)} for t in sent["target"]]
        entries.append(entry("POST", "Provenance", {**sent, "target": targets}))
    outcome = refused(await surgeon.transaction(*entries), 422, "business-rule")
    assert outcome["issue"][0]["expression"] == ["Observation.status"]
    assert (await module_api.get(f"/fhir/{reference}")).json()["status"] == "preliminary"


async def test_a_service_may_not_sign_off(module_api: Api) -> None:
    found = await proposal(module_api)
    reference = f"Observation/{found['id']}"
    answer = await module_api.transaction(
        entry("PUT", reference, {**found, "status": "final"}), entry("POST", "Provenance", provenance(reference))
    )
    refused(answer, 422, "business-rule")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("Observation", "final"),
        ("Observation", "amended"),
        ("Observation", "corrected"),
        ("DiagnosticReport", "preliminary"),
        ("DiagnosticReport", "final"),
        ("DiagnosticReport", "appended"),
        ("CarePlan", "active"),
        ("CarePlan", "completed"),
    ],
)
async def test_create_in_a_signed_off_status_is_refused(module_api: Api, kind: str, status: str) -> None:
    body = {**MADE[kind], "status": status}
    for api in (module_api, module_api.as_("user/*.cruds", **SURGEON)):
        refused(await api.post(f"/fhir/{kind}", body), 422, "business-rule")
        refused(await api.put(f"/fhir/{kind}/ai-new", {**body, "id": "ai-new"}), 422, "business-rule")


async def test_the_tag_cannot_be_removed(module_api: Api) -> None:
    found = await proposal(module_api)
    bare = {name: value for name, value in found.items() if name != "meta"}
    for api in (module_api, module_api.as_("user/*.cruds", **SURGEON)):
        outcome = refused(await api.put(f"/fhir/Observation/{found['id']}", bare), 422, "business-rule")
        assert outcome["issue"][0]["expression"] == ["Observation.meta.tag"]


async def test_the_tag_survives_delete_and_new_creation(module_api: Api) -> None:
    found = await proposal(module_api)
    await module_api.delete(f"/fhir/Observation/{found['id']}")
    bare = {name: value for name, value in found.items() if name != "meta"} | {"status": "final"}
    refused(await module_api.put(f"/fhir/Observation/{found['id']}", bare), 422, "business-rule")


async def test_the_pipeline_may_write_its_proposals(module_api: Api) -> None:
    found = await proposal(module_api)
    await module_api.put_ok({**found, "note": [{"text": "second run"}]})


_SUBJECT = {"subject": {"reference": "Patient/1"}}
_CODED = {"coding": [{"system": "https://example.org/SYNTHETIC", "code": "x"}]}
_AUTHOR = {"reference": "Practitioner/surgeon"}
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_OTHERS: tuple[tuple[str, str, Any, Any, dict[str, Any]], ...] = (
    (
        "MedicationRequest",
        "status",
        "active",
        "draft",
        {"intent": "proposal", "medicationCodeableConcept": _CODED, **_SUBJECT},
    ),
    ("ServiceRequest", "status", "active", "draft", {"intent": "proposal", **_SUBJECT}),
    (
        "Composition",
        "status",
        "final",
        "preliminary",
        {"type": _CODED, "date": "2026-11-22", "author": [_AUTHOR], "title": "SYNTHETIC"},
    ),
    (
        "DocumentReference",
        "docStatus",
        "final",
        "preliminary",
        {"status": "current", "content": [{"attachment": {"contentType": "text/plain"}}]},
    ),
    ("Goal", "lifecycleStatus", "active", "proposed", {"description": _CODED, **_SUBJECT}),
    ("Goal", "lifecycleStatus", "accepted", "planned", {"description": _CODED, **_SUBJECT}),
    (
        "Condition",
        "verificationStatus",
        {"coding": [{"system": _VERIFICATION, "code": "confirmed"}]},
        {"coding": [{"system": _VERIFICATION, "code": "provisional"}]},
        {"code": _CODED, **_SUBJECT},
    ),
    ("Procedure", "status", "completed", "preparation", _SUBJECT),
    ("Task", "status", "completed", "requested", {"intent": "proposal"}),
    ("ClinicalImpression", "status", "completed", "in-progress", _SUBJECT),
)


@pytest.mark.parametrize(("kind", "element", "signed", "proposed", "rest"), _OTHERS)
async def test_every_other_type_needs_a_person_too(
    module_api: Api, kind: str, element: str, signed: Any, proposed: Any, rest: dict[str, Any]
) -> None:
    made = {"resourceType": kind, **TAGGED, **rest}
    surgeon = module_api.as_("user/*.cruds", **SURGEON)
    for api in (module_api, surgeon):
        outcome = refused(await api.post(f"/fhir/{kind}", {**made, element: signed}), 422, "business-rule")
        assert outcome["issue"][0]["expression"] == [f"{kind}.{element}"]
    found = await module_api.create({**made, element: proposed})
    reference = f"{kind}/{found['id']}"
    refused(await module_api.put(f"/fhir/{reference}", {**found, element: signed}), 422, "business-rule")
    answer = await surgeon.transaction(
        entry("PUT", reference, {**found, element: signed}), entry("POST", "Provenance", provenance(reference))
    )
    assert answer.status_code == 200, answer.text
    refused(await module_api.delete(f"/fhir/{reference}"), 422, "business-rule")
    assert (await surgeon.delete(f"/fhir/{reference}")).status_code == 204


async def test_a_diagnosis_that_does_not_say_how_sure_it_is_needs_a_person(module_api: Api) -> None:
    made = {"resourceType": "Condition", "code": _CODED, **_SUBJECT, **TAGGED}
    outcome = refused(await module_api.post("/fhir/Condition", made), 422, "business-rule")
    assert outcome["issue"][0]["expression"] == ["Condition.verificationStatus"]


async def test_a_model_in_use_is_no_verdict(module_api: Api) -> None:
    await module_api.create({"resourceType": "Device", "status": "active", **TAGGED})


async def test_the_tag_of_every_type_survives_delete_and_new_creation(module_api: Api) -> None:
    made = {"resourceType": "ServiceRequest", "status": "draft", "intent": "proposal", **_SUBJECT}
    found = await module_api.create({**made, **TAGGED})
    url = f"/fhir/ServiceRequest/{found['id']}"
    assert (await module_api.delete(url)).status_code == 204
    bare = {**made, "id": found["id"], "status": "active"}
    outcome = refused(await module_api.put(url, bare), 422, "business-rule")
    assert outcome["issue"][0]["expression"] == ["ServiceRequest.meta.tag"]


async def test_what_a_person_signed_and_the_signature_are_deleted_by_a_person_only(module_api: Api) -> None:
    found = await proposal(module_api)
    reference = f"Observation/{found['id']}"
    surgeon = module_api.as_("user/*.cruds", **SURGEON)
    answer = await surgeon.transaction(
        entry("PUT", reference, {**found, "status": "final"}), entry("POST", "Provenance", provenance(reference))
    )
    signature = answer.json()["entry"][1]["response"]["location"].partition("/_history")[0]
    assert signature.startswith("Provenance/")
    patient = module_api.as_("user/*.cruds", fhirUser="Patient/1")
    for api in (module_api, patient):
        for url in (reference, signature, f"Observation?_id={found['id']}"):
            refused(await api.delete(f"/fhir/{url}"), 422, "business-rule")
        refused(await api.transaction(entry("DELETE", reference)), 422, "business-rule")
    body = (await module_api.get(f"/fhir/{signature}")).json()
    emptied = {**body, "target": [{"reference": "Observation/other"}]}
    refused(await module_api.put(f"/fhir/{signature}", emptied), 422, "business-rule")
    assert (await module_api.get(f"/fhir/{reference}")).json()["status"] == "final"
    for url in (signature, reference):
        assert (await surgeon.delete(f"/fhir/{url}")).status_code == 204


async def test_a_proposal_may_be_deleted_by_the_pipeline(module_api: Api) -> None:
    found = await proposal(module_api)
    assert (await module_api.delete(f"/fhir/Observation/{found['id']}")).status_code == 204
