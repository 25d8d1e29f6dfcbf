"""Intersections of SMART scopes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foramen.identity.roles import PATIENT, PHYSICIAN, ROLES, role_scopes
from foramen.identity.scopes import grant, narrowed, unknown_scopes
from foramen.kernel.access_context import parse_scopes

APP = "launch openid fhirUser patient/*.rs user/*.rs user/Observation.u user/Task.rus"
PERSON = ("patient", "user")


@pytest.mark.parametrize(
    ("requested", "granted"),
    [
        ("openid fhirUser", "openid fhirUser"),
        ("openid profile", "openid"),
        ("user/*.rs", "user/*.rs"),
        ("user/Patient.rs", "user/Patient.rs"),
        ("user/Patient.read", "user/Patient.read"),
        ("user/*.cruds", "user/*.rs user/Observation.u user/Task.u"),
        ("user/Observation.cruds", "user/Observation.rus"),
        ("user/Observation.write", "user/Observation.u"),
        ("user/Observation.d", ""),
        ("system/*.rs", ""),
        ("patient/*.rs patient/*.rs", "patient/*.rs"),
        ("patient/Observation.rs?category=laboratory", ""),
        ("user/observation.rs nonsense user/*.sr", ""),
        ("launch/patient", ""),
    ],
)
def test_grant_for_a_physician(requested: str, granted: str):
    assert grant(requested, APP, role_scopes(PHYSICIAN), PERSON) == granted


def test_grant_needs_request_registration_and_role_together():
    assert grant("user/CarePlan.cu", "user/*.cruds", role_scopes(PHYSICIAN), PERSON) == "user/CarePlan.cu"
    assert grant("user/CarePlan.cu", "user/*.rs", role_scopes(PHYSICIAN), PERSON) == ""
    assert grant("user/Patient.cu", "user/*.cruds", role_scopes(PHYSICIAN), PERSON) == ""
    assert grant("user/*.rs", "user/*.cruds", role_scopes("no such role"), PERSON) == ""


def test_patient_never_gets_a_scope_that_reaches_others():
    assert (
        grant("user/*.rs patient/*.rs system/*.rs", "user/*.rs patient/*.rs", role_scopes(PATIENT), PERSON)
        == "patient/*.rs"
    )


@pytest.mark.parametrize("role", [role for role in ROLES if role not in (PHYSICIAN, PATIENT)])
def test_nobody_else_reads_identified_data(role: str):
    clinical = " ".join(f"user/{kind}.rs patient/{kind}.rs" for kind in ("Patient", "Observation", "ImagingStudy", "*"))
    granted = grant(clinical, "user/*.rs patient/*.rs", role_scopes(role), PERSON)
    for scope in parse_scopes(granted):
        assert scope.resource_type not in ("*", "Patient", "Observation", "ImagingStudy")


_scope = st.builds(
    lambda context, kind, actions: f"{context}/{kind}.{''.join(a for a in 'cruds' if a in actions)}",
    st.sampled_from(["patient", "user", "system"]),
    st.sampled_from(["*", "Patient", "Observation", "Task"]),
    st.sets(st.sampled_from("cruds"), min_size=1),
)
_scopes = st.lists(_scope, max_size=4).map(" ".join)


@given(_scopes, _scopes, _scopes)
def test_granted_is_exactly_what_all_three_cover(requested: str, registered: str, permitted: str):
    granted = parse_scopes(grant(requested, registered, parse_scopes(permitted), ("patient", "user", "system")))
    sides = [parse_scopes(text) for text in (requested, registered, permitted)]
    for context in ("patient", "user", "system"):
        for kind in ("Patient", "Observation", "Task", "Device"):
            for action in "cruds":
                expected = all(any(s.context == context and s.covers(kind, action) for s in side) for side in sides)
                got = any(s.context == context and s.covers(kind, action) for s in granted)
                assert got == expected, (context, kind, action)


def test_refresh_only_narrows():
    assert narrowed("user/Patient.r openid", "openid user/*.rs") == "user/Patient.r openid"
    assert narrowed("user/Patient.cr", "openid user/*.rs") is None
    assert narrowed("profile", "openid user/*.rs") is None
    assert narrowed("patient/*.rs", "user/*.rs") is None


def test_unknown_scopes_are_named():
    assert unknown_scopes("openid user/*.rs system/*.x launch/patient magic") == ["system/*.x", "magic"]
