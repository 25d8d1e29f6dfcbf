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
