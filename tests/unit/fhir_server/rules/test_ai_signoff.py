"""The sign-off gate, as a pure function."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.rules.ai_signoff import SIGNED_OFF, check_deletion, check_signoff
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidResourceError
from terminology.codes import AI_GENERATED

SURGEON = AccessContext("s", "c", (), fhir_user="Practitioner/1")
PATIENT = AccessContext("p", "c", (), fhir_user="Patient/1")
SERVICE = AccessContext("w", "w", ())
PROVENANCE = {
    "target": [{"reference": "Observation/1/_history/1"}, {"reference": "Observation/1"}],
    "agent": [{"type": {"coding": [{"code": "verifier"}]}, "who": {"reference": "Practitioner/1"}}],
}


def resource(status: str, *, tagged: bool = True, kind: str = "Observation") -> dict[str, Any]:
    tags = [AI_GENERATED.coding()] if tagged else []
    return {"resourceType": kind, "status": status, "meta": {"tag": tags}}


def check(
    old: dict[str, Any] | None, new: dict[str, Any], context: AccessContext, *provenances: dict[str, Any]
) -> None:
    check_signoff(old, new, f"{new['resourceType']}/1", context, provenances)


def test_a_person_with_provenance_may() -> None:
    check(resource("preliminary"), resource("final"), SURGEON, PROVENANCE)


@pytest.mark.parametrize("context", [SERVICE, PATIENT])
def test_nobody_else_may(context: AccessContext) -> None:
    with pytest.raises(InvalidResourceError):
        check(None, resource("final"), context, PROVENANCE)


@pytest.mark.parametrize(
    ("kind", "status"), [(kind, status) for kind, all_of in SIGNED_OFF.items() for status in sorted(all_of)]
)
def test_every_signed_off_status_needs_provenance(kind: str, status: str) -> None:
    with pytest.raises(InvalidResourceError) as caught:
        check(None, resource(status, kind=kind), SURGEON)
    assert caught.value.issues[0].expression == (f"{kind}.status",)
    assert caught.value.issue_code == "business-rule"


def test_rejection_needs_the_person_too() -> None:
    with pytest.raises(InvalidResourceError):
        check(resource("preliminary"), resource("entered-in-error"), SERVICE)
    check(resource("preliminary"), resource("entered-in-error"), SURGEON, PROVENANCE)


def test_the_tag_stays() -> None:
    with pytest.raises(InvalidResourceError):
        check(resource("preliminary"), resource("preliminary", tagged=False), SURGEON, PROVENANCE)


def test_what_is_not_of_an_ai_is_free() -> None:
    check(None, resource("final", tagged=False), SERVICE)
    check(None, resource("active", kind="ServiceRequest", tagged=False), SERVICE)


def test_tag_of_another_system_is_not_ours() -> None:
    check(None, {**resource("final"), "meta": {"tag": [{"system": "urn:x", "code": "AI-GENERATED"}]}}, SERVICE)


@pytest.mark.parametrize("status", ["preliminary", "cancelled", "registered"])
def test_what_a_person_signed_is_not_unsigned_by_a_service(status: str) -> None:
    with pytest.raises(InvalidResourceError):
        check(resource("final"), resource(status), SERVICE)
    check(resource("final"), resource(status), SURGEON, PROVENANCE)


@pytest.mark.parametrize("old", ["cancelled", "entered-in-error"])
def test_what_was_superseded_or_withdrawn_cannot_be_signed(old: str) -> None:
    with pytest.raises(InvalidResourceError, match="superseded"):
        check(resource(old), resource("final"), SURGEON, PROVENANCE)


def test_a_list_of_options_is_not_activated_by_a_service() -> None:
    with pytest.raises(InvalidResourceError):
        check(None, resource("active", kind="RequestGroup"), SERVICE)


@pytest.mark.parametrize("kind", ["ServiceRequest", "MedicationRequest", "Task", "NoTypeOfToday"])
@pytest.mark.parametrize("element", ["status", "docStatus", "lifecycleStatus"])
@pytest.mark.parametrize("word", ["active", "completed", "final", "accepted", "entered-in-error", "a-new-word"])
def test_of_other_types_only_known_harmless_words_are_free(kind: str, element: str, word: str) -> None:
    made = {**resource("draft", kind=kind), element: word}
    with pytest.raises(InvalidResourceError) as caught:
        check(None, made, SERVICE)
    assert caught.value.issues[0].expression == (f"{kind}.{element}",)
    signature = {**PROVENANCE, "target": [{"reference": f"{kind}/1"}]}
    check(None, made, SURGEON, signature)
    check(None, {**made, "meta": {}}, SERVICE)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("GuidanceResponse", "success"),
        ("GuidanceResponse", "data-required"),
        ("DocumentReference", "current"),
        ("ImagingStudy", "available"),
        ("Device", "active"),
        ("ServiceRequest", "revoked"),
    ],
)
def test_harmless_words_are_free(kind: str, status: str) -> None:
    check(None, resource(status, kind=kind), SERVICE)


def test_a_signature_is_deleted_or_changed_by_a_practitioner_only() -> None:
    signature = {"resourceType": "Provenance", **PROVENANCE}
    by_software = {
        "resourceType": "Provenance",
        "agent": [{"type": {"coding": [{"code": "verifier"}]}, "who": {"reference": "Device/1"}}, {}],
    }
    for context in (SERVICE, PATIENT):
        with pytest.raises(InvalidResourceError):
            check_deletion(signature, context)
        with pytest.raises(InvalidResourceError):
            check(signature, by_software, context)
        with pytest.raises(InvalidResourceError):
            check_deletion(resource("final"), context)
        check_deletion(by_software, context)
        check_deletion(resource("preliminary"), context)
        check_deletion(resource("final", tagged=False), context)
    for old in (signature, resource("final")):
        check_deletion(old, SURGEON)


@pytest.mark.parametrize(
    ("concept", "free"),
    [
        ({"coding": [{"code": "provisional"}]}, True),
        ({"coding": [{"code": "unconfirmed"}, {"code": "confirmed"}]}, False),
        ({"coding": [{"system": "urn:x"}]}, False),
        ({"text": "provisional"}, False),
        (None, False),
    ],
)
def test_how_sure_a_diagnosis_is(concept: dict[str, Any] | None, free: bool) -> None:
    made = {"resourceType": "Condition", "meta": resource("")["meta"]}
    if concept is not None:
        made["verificationStatus"] = concept
    if free:
        check(None, made, SERVICE)
    else:
        with pytest.raises(InvalidResourceError):
            check(None, made, SERVICE)
