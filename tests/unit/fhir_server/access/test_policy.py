"""Scopes to conditions."""

from __future__ import annotations

import pytest

from fhir_server.access.policy import Access
from fhir_server.search.conditions import AnyPosting
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import patient_base
from foramen.kernel.access_context import AccessContext, parse_scopes
from foramen.kernel.errors import ForbiddenError


def access(scope: str, patient: str | None = None) -> Access:
    return Access(AccessContext("s", "c", parse_scopes(scope), scope, patient=patient))


def test_user_scope_is_not_bounded() -> None:
    assert access("user/*.rs").condition("Observation", "s") is None


def test_patient_scope_becomes_a_condition() -> None:
    expected = AnyPosting((patient_base("Observation") ^ resource_key("Patient", "7"),))
    assert access("patient/*.rs", "7").condition("Observation", "s") == expected


@pytest.mark.parametrize("scope", ["", "patient/*.rs", "openid", "system/Patient.rs", "system/Observation.r"])
def test_missing_scope_or_context_refuses(scope: str) -> None:
    with pytest.raises(ForbiddenError):
        access(scope).condition("Observation", "s")
    assert not access(scope).may("Observation", "s")
