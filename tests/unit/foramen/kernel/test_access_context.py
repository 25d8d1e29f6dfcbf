"""SMART scopes: https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foramen.kernel.access_context import AccessContext, Reach, parse_scope, parse_scopes
from foramen.kernel.errors import ForbiddenError


def context(scope: str, patient: str | None = None) -> AccessContext:
    return AccessContext("someone", "client", parse_scopes(scope), scope, patient=patient)


def test_v1_scopes_mean_their_v2_actions() -> None:
    assert str(parse_scope("patient/Observation.read")) == "patient/Observation.rs"
    assert str(parse_scope("user/*.write")) == "user/*.cud"
    assert str(parse_scope("system/*.*")) == "system/*.cruds"


@pytest.mark.parametrize(
    "text",
    ["patient/Observation.sr", "admin/*.rs", "patient/Observation", "patient/Observation.", "launch", "", "*/*.*"],
)
def test_unknown_scopes_grant_nothing(text: str) -> None:
    assert parse_scope(text) is None


def test_a_patient_scope_reaches_the_compartment_only() -> None:
    assert context("patient/Observation.rs", "p1").reach("Observation", "r") is Reach.COMPARTMENT


def test_a_patient_scope_without_a_patient_refuses() -> None:
    with pytest.raises(ForbiddenError):
        context("patient/Observation.rs").reach("Observation", "r")


def test_the_widest_granted_reach_counts() -> None:
    assert context("patient/*.rs user/Observation.r", "p1").reach("Observation", "r") is Reach.EVERYTHING


@given(st.text(alphabet="cruds", max_size=5), st.sampled_from("cruds"))
def test_only_listed_actions_are_granted(actions: str, action: str) -> None:
    scope = parse_scope(f"system/Patient.{actions}")
    in_order = actions and "".join(sorted(set(actions), key="cruds".index)) == actions
    assert (scope is not None and scope.covers("Patient", action)) == bool(in_order and action in actions)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("patient/Observation.rs?category=laboratory", "category=laboratory"),
        ("patient/Observation.rs?code=b&category=a", "category=a&code=b"),
        ("patient/Observation.rs?category=a&category=a", "category=a"),
        ("patient/Observation.rs?category=http%3A%2F%2Fx%7Claboratory", "category=http://x|laboratory"),
        ("user/*.rs?_tag=a%20b", "_tag=a%20b"),
        ("system/Observation.rs?category:not=a,b", "category:not=a,b"),
        ("patient/Observation.rs?date=ge2026-01-01T00:00:00%2B08:00", "date=ge2026-01-01T00:00:00%2B08:00"),
    ],
)
def test_a_query_is_written_one_way(text: str, query: str) -> None:
    scope = parse_scope(text)
    assert scope is not None
    assert scope.query == query
    assert parse_scope(str(scope)) == scope


@pytest.mark.parametrize(
    "query",
    [
        *("", "category", "category=", "=a", "category=a&", "category=%zz", "category=%ff", "category=%00", "a.b=1"),
        *("_has:Observation:subject:code=x", "_include=*", "_count=5", "_filter=x", "_content=x", "_list=1", "_type=X"),
        *("subject:Patient.name=x", "category=a;b=c&d", "x=" + "a" * 1100, "&".join(f"p{n}=1" for n in range(9))),
    ],
)
def test_a_query_that_is_not_plain_grants_nothing(query: str) -> None:
    assert parse_scope(f"patient/Observation.rs?{query}") is None


def test_scopes_of_version_1_have_no_query() -> None:
    for actions in ("read", "write", "*"):
        assert parse_scope(f"patient/Observation.{actions}?category=a") is None


def test_a_granular_scope_reaches_less_than_the_compartment() -> None:
    granular = "patient/Observation.rs?category=a"
    assert context(granular, "p1").reach("Observation", "r") is Reach.RESTRICTED
    assert context(granular, "p1").restrictions("Observation", "r") == ("category=a",)
    assert context(f"{granular} patient/*.r", "p1").reach("Observation", "r") is Reach.COMPARTMENT
    assert context(f"{granular} patient/*.r", "p1").restrictions("Observation", "r") is None
    assert context(f"{granular} user/*.r", "p1").reach("Observation", "r") is Reach.EVERYTHING
    with pytest.raises(ForbiddenError):
        context(granular).restrictions("Observation", "r")
    with pytest.raises(ForbiddenError):
        context(granular, "p1").require_whole_type("Observation", "r")


@pytest.mark.parametrize(
    ("own", "other", "covers"),
    [
        ("user/*.rs", "user/Observation.rs?a=1", True),
        ("user/Observation.rs?a=1", "user/Observation.rs", False),
        ("user/Observation.rs?a=1", "user/Observation.rs?a=1&b=2", True),
        ("user/Observation.rs?a=1&b=2", "user/Observation.rs?a=1", False),
        ("user/Observation.rs?a=1", "patient/Observation.rs?a=1", True),
        ("patient/Observation.rs?a=1", "user/Observation.rs?a=1", False),
        ("user/Observation.r?a=1", "user/Observation.rs?a=1", False),
    ],
)
def test_one_token_covers_another_with_its_queries(own: str, other: str, *, covers: bool) -> None:
    assert context(own, "p1").covers(context(other, "p1")) is covers


def test_a_patient_does_not_take_over_what_a_clinician_asked_for() -> None:
    patient, clinician = (
        AccessContext("a", "c", parse_scopes("patient/*.rs"), patient="p1", fhir_user=user)
        for user in ("Patient/p1", "Practitioner/d")
    )
    assert clinician.covers(patient)
    assert not patient.covers(clinician)
