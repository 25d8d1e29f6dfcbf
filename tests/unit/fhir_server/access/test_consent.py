"""What a Consent refuses, and to whom. All data SYNTHETIC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_server.access.consent import DenialPolicy, denials_of
from fhir_server.search.hashing import resource_key
from fhir_server.store.changes import Stored
from foramen.kernel.access_context import AccessContext
from foramen.kernel.consent_caller import Caller, names_of

_BASE = "https://record.example/fhir"
_NOW = 1.8e15
_CLASS = "http://hl7.org/fhir/resource-types"


def _consent(**provision: Any) -> dict[str, Any]:
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "patient": {"reference": f"{_BASE}/Patient/p"},
        "provision": {"type": "deny", **provision},
    }


def _actor(reference: str) -> dict[str, Any]:
    return {"reference": {"reference": reference}}


def _policy(consent: dict[str, Any], *names: str) -> DenialPolicy:
    return DenialPolicy(denials_of(consent, _BASE), Caller(frozenset(names)), _NOW)


def _version(resource_type: str = "Observation", *labels: str, patient: str = "p") -> Stored:
    security = ",".join(f'{{"system":"s","code":"{label}"}}' for label in labels)
    content = f'{{"resourceType":"{resource_type}","meta":{{"security":[{security}]}}}}'.encode()
    key = resource_key("Patient", patient)
    return Stored(1, resource_type, "x", 1, datetime.now(UTC), "PUT", content, (key,))


def test_a_denial_names_its_actors():
    consent = _consent(actor=[_actor("Practitioner/a"), _actor(f"{_BASE}/Practitioner/b")])
    for name, hidden in (("a", True), ("b", True), ("c", False)):
        policy = _policy(consent, f"Practitioner/{name}")
        assert policy.hides(_version()) is hidden
        assert bool(policy) is hidden
        assert (policy.condition("Observation") is not None) is hidden
    assert not _policy(consent, "Practitioner/a").hides(_version(patient="q"))


def test_nobody_named_is_everybody_but_the_patient():
    assert _policy(_consent(), "Practitioner/a").hides(_version())
    assert not _policy(_consent(), "Patient/p").hides(_version())
    assert _policy(_consent(), "Patient/q").hides(_version())


def test_classes_labels_and_periods_limit_it():
    by_class = _policy(_consent(**{"class": [{"system": _CLASS, "code": "Condition"}]}))
    assert by_class.hides(_version("Condition"))
    assert not by_class.hides(_version())
    assert by_class.condition("Observation") is None
    by_label = _policy(_consent(securityLabel=[{"system": "s", "code": "R"}]))
    assert by_label.hides(_version("Observation", "r"))
    assert not by_label.hides(_version("Observation", "N"))
    assert by_label.hidden_patients("Observation") == {resource_key("Patient", "p")}
    assert not _policy(_consent(period={"end": "2020"})).hides(_version())
    assert _policy(_consent(period={"start": "2020"})).hides(_version())


def test_nested_provisions():
    permit = {"type": "permit", "actor": [_actor("Practitioner/a")]}
    assert not _policy(_consent(provision=[permit]), "Practitioner/a").hides(_version())
    assert _policy(_consent(provision=[permit]), "Practitioner/b").hides(_version())
    one_class = {**permit, "class": [{"system": _CLASS, "code": "Observation"}]}
    lifted = _policy(_consent(provision=[one_class]), "Practitioner/a")
    assert not lifted.hides(_version())
    assert lifted.hides(_version("Condition"))
    within = _consent(type="permit", provision=[{"type": "deny", "actor": [_actor("Practitioner/a")]}])
    assert _policy(within, "Practitioner/a").hides(_version())


_PURPOSE = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HRESCH"}
_BY_NUMBER = {"reference": {"identifier": {"system": "urn:synthetic:staff", "value": "7"}}}
_BY_NAME = {"reference": {"display": "SYNTHETIC doctor"}}
_DOCUMENT = {"system": "urn:ietf:bcp:13", "code": "application/hl7-cda+xml"}
_MODIFIER = [{"url": "urn:synthetic:not", "valueBoolean": True}]


@pytest.mark.parametrize(
    "limit",
    [
        {"actor": [_BY_NUMBER]},
        {"actor": [_BY_NAME]},
        {"actor": [_actor("Practitioner/a"), _BY_NUMBER]},
        {"actor": [{**_actor("Practitioner/a"), "modifierExtension": _MODIFIER}]},
        {"actor": [{"role": {"text": "SYNTHETIC"}}]},
        {"class": [_DOCUMENT]},
        {"class": [{"system": _CLASS, "code": "Observation"}, _DOCUMENT]},
        {"class": [{"system": _CLASS, "code": "Nonsense"}]},
        {"class": [{"system": _CLASS}]},
        {"class": [{"code": "Observation"}]},
        {"purpose": [_PURPOSE]},
        {"data": [{"meaning": "instance", "reference": {"reference": "Observation/y"}}]},
        {"dataPeriod": {"end": "2020"}},
        {"code": [{"coding": [{"system": "http://loinc.org", "code": "30525-0"}]}]},
        {"action": [{"coding": [{"code": "collect"}]}]},
        {"provision": [{"type": "deny", "actor": [_actor("Practitioner/a")]}]},
        {"period": {"_start": {"extension": _MODIFIER}}},
        {"period": {"end": "whenever"}},
        {"period": {"start": "2020", "end": "2021"}},
        {"securityLabel": [{"system": "s", "code": "N"}]},
        {"modifierExtension": _MODIFIER},
        {"_class": [{"extension": _MODIFIER}]},
    ],
    ids=str,
)
def test_a_permit_whose_limits_are_not_all_read_lifts_nothing(limit: dict[str, Any]):
    permit = {"type": "permit", **limit}
    assert _policy(_consent(provision=[permit]), "Practitioner/a").hides(_version())
    if "actor" not in limit:
        assert _policy(_consent(provision=[{**permit, "actor": [_actor("Practitioner/a")]}]), "Practitioner/a")


@pytest.mark.parametrize(
    "limit",
    [
        {},
        {"period": {"start": "2020"}},
        {"class": [{"system": _CLASS, "code": "Observation", "display": "SYNTHETIC"}], "purpose": []},
        {"extension": [{"url": "urn:synthetic", "valueString": "SYNTHETIC"}], "id": "one"},
    ],
    ids=str,
)
def test_a_permit_that_is_read_whole_lifts_the_denial(limit: dict[str, Any]):
    permit = {"type": "permit", "actor": [{**_actor("Practitioner/a"), "role": {"text": "SYNTHETIC"}}], **limit}
    assert not _policy(_consent(provision=[permit]), "Practitioner/a").hides(_version())
    assert _policy(_consent(provision=[permit]), "Practitioner/b").hides(_version())


def test_one_permit_that_is_not_read_takes_nothing_from_another():
    permits = [{"type": "permit", "purpose": [_PURPOSE]}, {"type": "permit", "actor": [_actor("Practitioner/a")]}]
    assert not _policy(_consent(provision=permits), "Practitioner/a").hides(_version())
    assert _policy(_consent(provision=permits), "Practitioner/b").hides(_version())


@pytest.mark.parametrize(
    "limit",
    [
        {"actor": [_actor("Practitioner/b"), _BY_NUMBER]},
        {"actor": [_BY_NAME]},
        {"class": [{"system": _CLASS, "code": "Condition"}, _DOCUMENT]},
        {"securityLabel": [{"system": "s", "code": "R"}, {"system": "s", "display": "SYNTHETIC"}]},
        {"purpose": [_PURPOSE]},
    ],
    ids=str,
)
def test_a_denial_with_a_limit_that_is_not_read_hides_more_never_less(limit: dict[str, Any]):
    assert _policy(_consent(**limit), "Practitioner/a").hides(_version())


@pytest.mark.parametrize(
    "change",
    [{"status": "draft"}, {"scope": {"coding": [{"code": "treatment"}]}}, {"patient": None}, {"provision": None}],
)
def test_what_refuses_nothing(change: dict[str, Any]):
    assert denials_of({**_consent(), **change}, _BASE) == []


def test_names_of_a_caller():
    context = AccessContext("s", "app", (), fhir_user="Practitioner/a", institution="clinic")
    assert names_of(context) == {"Practitioner/a", "Device/app", "Organization/clinic"}
    assert names_of(AccessContext("s", "app", ())) == {"Device/app"}
