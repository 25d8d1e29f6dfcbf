"""Groups to roles, claims to factors: what is not named gives nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foramen.identity.federation.outside_identity import FEDERATED, FEDERATED_SECOND, factors_of, values_of
from foramen.identity.federation.providers import parse_settings
from foramen.identity.federation.requests import derived
from foramen.identity.federation.role_mapping import Mapped, mapped
from foramen.identity.rights.roles import ROLES
from foramen.kernel.errors import InvalidRequestError

SETTINGS = parse_settings(
    {
        "roles": [
            {"group": "chiefs", "role": "institution-administrator"},
            {"group": "surgeons", "role": "physician"},
            {"group": "it", "role": "engineer"},
        ],
        "institutions": [{"value": "north", "institution": "i1"}, {"value": "south", "institution": "i2"}],
        "practitioner_claim": "fhirUser",
    }
)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"groups": ["surgeons"]}, Mapped("physician", None, None)),
        ({"groups": "surgeons"}, Mapped("physician", None, None)),
        ({"groups": ["it", "surgeons"]}, Mapped("physician", None, None)),  # the order of the mapping, not of the claim
        ({"groups": ["it", "south", "north"]}, Mapped("engineer", "i1", None)),
        ({"groups": ["chiefs", "north"]}, Mapped("institution-administrator", "i1", None)),
        ({"groups": ["chiefs"]}, None),  # of no institution: bounded by nothing
        ({"groups": ["Surgeons", "surgeons ", "surgeon"]}, None),
        ({"groups": {"surgeons": True}}, None),
        ({"groups": [["surgeons"], None, 7]}, None),
        ({"groups": []}, None),
        ({}, None),
        ({"groups": "it", "fhirUser": "https://ehr/fhir/Practitioner/p-1"}, Mapped("engineer", None, "p-1")),
        ({"groups": "it", "fhirUser": "Patient/p-1"}, Mapped("engineer", None, None)),
        ({"groups": "it", "fhirUser": "Practitioner/p 1"}, Mapped("engineer", None, None)),
        ({"groups": "it", "fhirUser": "Practitioner/p1/_history/2"}, Mapped("engineer", None, None)),
    ],
)
def test_what_the_claims_make_of_somebody(claims: dict[str, Any], expected: Mapped | None):
    assert mapped(SETTINGS, claims) == expected


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text()) | st.integers() | st.none()))
def test_no_claim_gives_a_role_that_no_line_names(claims: dict[str, Any]):
    found = mapped(SETTINGS, claims)
    groups = set(values_of(claims, "groups"))
    assert found is None or any(line.group in groups and line.role == found.role for line in SETTINGS.roles)


def test_without_a_line_there_is_no_role_whatever_the_group_is_called():
    assert all(mapped(parse_settings({}), {"groups": [role]}) is None for role in ROLES)


def test_two_factors_only_where_trusted():
    claims = {"acr": "mfa", "amr": ["otp", "mfa"]}
    assert factors_of(parse_settings({}), claims) == (FEDERATED,)
    assert factors_of(parse_settings({"two_factor_amr": ["mfa"]}), claims) == (FEDERATED, FEDERATED_SECOND)
    assert factors_of(parse_settings({"two_factor_acr": ["mfa"]}), claims) == (FEDERATED, FEDERATED_SECOND)
    assert factors_of(parse_settings({"two_factor_acr": ["loa3"], "two_factor_amr": ["hwk"]}), claims) == (FEDERATED,)
    assert factors_of(parse_settings({"two_factor_amr": ["mfa"]}), {"amr": {"mfa": 1}}) == (FEDERATED,)


def test_claims_inside_objects():
    claims = {"realm_access": {"roles": ["a", "b"]}, "x.y": "c"}
    assert values_of(claims, "realm_access.roles") == ("a", "b")
    assert values_of(claims, "x.y") == ("c",)
    assert values_of(claims, "realm_access.roles.z") == ()


@pytest.mark.parametrize(
    "values",
    [
        {"roles": [{"group": "g", "role": "patient"}]},
        {"roles": [{"group": "g", "role": "service"}]},
        {"roles": [{"group": "", "role": "engineer"}]},
        {"algorithms": ["none"]},
        {"algorithms": ["HS256"]},
        {"clock_skew_s": 301},
        {"networks": ["10.0.0.0/99"]},
        {"unknown": 1},
    ],
)
def test_settings_that_are_refused(values: dict[str, Any]):
    with pytest.raises(InvalidRequestError):
        parse_settings(values)


def test_derived_secrets_differ_by_purpose_state_and_browser():
    found = {derived("s", *parts) for parts in (("nonce", "a", "b"), ("verifier", "a", "b"), ("nonce", "b", "a"))}
    assert len(found) == 3
    assert all(len(text) == 43 for text in found)
