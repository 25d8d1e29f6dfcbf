"""The sign-off gate, as a pure function."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.rules.ai_signoff import SIGNED_OFF, check_signoff
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
    ("kind", "status"), [(kind, status) for kind, all_of in SIGNED_OFF.items() for status in all_of]
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
    check(None, resource("active", kind="Condition"), SERVICE)


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
