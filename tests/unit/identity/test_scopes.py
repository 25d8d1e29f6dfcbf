"""Intersections of SMART scopes."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foramen.identity.oauth.scopes import grant, narrowed, unknown_scopes
from foramen.identity.rights.roles import PATIENT, PHYSICIAN, ROLES, role_scopes
from foramen.kernel.access_context import Scope, parse_scopes

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
        ("patient/Observation.rs?category=laboratory", "patient/Observation.rs?category=laboratory"),
        ("user/Observation.cruds?category=a", "user/Observation.rus?category=a"),
        ("patient/Observation.read?category=laboratory", ""),
        ("patient/Observation.rs?", ""),
        ("patient/Observation.rs?subject.name=x", ""),
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
    lambda context, kind, actions, query: (
        f"{context}/{kind}.{''.join(a for a in 'cruds' if a in actions)}" + (f"?{query}" if query else "")
    ),
    st.sampled_from(["patient", "user", "system"]),
    st.sampled_from(["*", "Patient", "Observation", "Task"]),
    st.sets(st.sampled_from("cruds"), min_size=1),
    st.sampled_from(["", "", "a=1", "b=2", "a=1&b=2"]),
)
_scopes = st.lists(_scope, max_size=4).map(" ".join)


@given(_scopes, _scopes, _scopes)
def test_granted_is_exactly_what_all_three_cover(requested: str, registered: str, permitted: str):
    granted = parse_scopes(grant(requested, registered, parse_scopes(permitted), ("patient", "user", "system")))
    sides = [parse_scopes(text) for text in (requested, registered, permitted)]
    resources = [(), ("a=1",), ("b=2",), ("a=1", "b=2")]
    questions = product(("patient", "user", "system"), ("Patient", "Observation", "Task", "Device"), "cruds", resources)
    for context, kind, action, fulfilled in questions:
        expected, got = (
            all(any(_grants(scope, context, kind, action, fulfilled) for scope in side) for side in compared)
            for compared in (sides, [granted])
        )
        assert got == expected, (context, kind, action, fulfilled)


def _grants(scope: Scope, context: str, kind: str, action: str, fulfilled: tuple[str, ...]) -> bool:
    asked = set(scope.query.split("&")) - {""}
    return scope.context == context and scope.covers(kind, action) and asked <= set(fulfilled)


@given(_scopes, _scopes)
def test_what_a_refresh_narrows_to_was_granted_before(requested: str, original: str):
    kept = narrowed(requested, original)
    if kept is None:
        return
    before, after = parse_scopes(original), parse_scopes(kept)
    for scope in after:
        for action in scope.actions:
            fulfilled = tuple(scope.query.split("&"))
            assert any(_grants(item, scope.context, scope.resource_type, action, fulfilled) for item in before)


@pytest.mark.parametrize(
    ("requested", "registered", "granted"),
    [
        ("patient/Observation.rs?category=a", "patient/*.rs", "patient/Observation.rs?category=a"),
        ("patient/Observation.rs", "patient/Observation.rs?category=a", "patient/Observation.rs?category=a"),
        ("patient/*.rs", "patient/Observation.r?category=a", "patient/Observation.r?category=a"),
        ("patient/Observation.rs?b=2&a=1", "patient/Observation.rs?a=1", "patient/Observation.rs?b=2&a=1"),
        ("patient/Observation.rs?a=2", "patient/Observation.rs?a=1", "patient/Observation.rs?a=1&a=2"),
        ("patient/Observation.rs?a=1", "patient/Observation.rs?a=1&b=2", "patient/Observation.rs?a=1&b=2"),
    ],
)
def test_a_query_narrows_and_is_never_lost(requested: str, registered: str, granted: str):
    assert grant(requested, registered, parse_scopes("patient/*.cruds"), PERSON) == granted


def test_a_refresh_may_add_a_query_and_never_drop_one():
    whole, narrow = "patient/Observation.rs", "patient/Observation.rs?category=a"
    assert narrowed(narrow, whole) == narrow
    assert narrowed(whole, narrow) is None
    assert narrowed("patient/Observation.rs?category=b", narrow) is None
    assert narrowed("patient/Observation.rs?category=a,b", narrow) is None
    assert narrowed(f"{narrow}&code=x", narrow) == f"{narrow}&code=x"


def test_the_administrators_scope_needs_the_person_and_the_client():
    both, permitted = "openid foramen/admin", role_scopes("system-administrator")
    assert grant(both, both, permitted, PERSON) == "openid"
    assert grant(both, "openid", permitted, PERSON, administrator=True) == "openid"
    assert grant(both, both, permitted, PERSON, administrator=True) == both


def test_refresh_only_narrows():
    assert narrowed("user/Patient.r openid", "openid user/*.rs") == "user/Patient.r openid"
    assert narrowed("user/Patient.cr", "openid user/*.rs") is None
    assert narrowed("profile", "openid user/*.rs") is None
    assert narrowed("patient/*.rs", "user/*.rs") is None


def test_unknown_scopes_are_named():
    assert unknown_scopes("openid user/*.rs system/*.x launch/patient magic") == ["system/*.x", "magic"]


def test_a_wildcard_of_people_leaves_out_the_audit_trail():
    allowed = parse_scopes("user/*.rs patient/*.rs")
    both = ("user", "patient")
    assert grant("user/AuditEvent.rs patient/AuditEvent.rs", "user/*.rs patient/*.rs", allowed, both) == ""
    named = parse_scopes("user/*.rs user/AuditEvent.rs")
    assert grant("user/AuditEvent.rs", "user/AuditEvent.rs", named, both) == "user/AuditEvent.rs"
    assert grant("user/*.rs", "user/*.rs", allowed, both) == "user/*.rs"
    assert narrowed("user/AuditEvent.rs", "user/*.rs") is None
    assert narrowed("system/AuditEvent.rs", "system/*.rs") == "system/AuditEvent.rs"
