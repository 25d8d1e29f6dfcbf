"""Which research Consents let labels be used: what cannot be read never permits, and denies all."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from ai_services.training.labels.check import leaks
from ai_services.training.labels.consent import ConsentRule, may_use
from tests.builders.decisions import research_consent

TODAY = date(2026, 11, 1)


def permits(*consents: dict[str, Any], rule: ConsentRule = ConsentRule.PERMITTED) -> bool:
    return may_use(consents, TODAY, rule)


@pytest.mark.parametrize(
    ("provision", "expected"),
    [
        ({}, True),
        ({"period": {"start": "2026-11-01", "end": "2026-11-01"}}, True),
        ({"period": {"start": "2026-11-02"}}, False),
        ({"period": {"end": "soon"}}, False),
        ({"purpose": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HRESCH"}]}, True),
        ({"purpose": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "TREAT"}]}, False),
        ({"actor": [{"reference": {"reference": "Practitioner/x"}}]}, False),
        ({"class": [{"code": "Observation"}]}, False),
        ({"provision": [{"type": "permit"}]}, False),
    ],
)
def test_a_permit_counts_only_when_all_it_says_is_read(provision: dict[str, Any], expected: bool) -> None:
    assert permits(research_consent("Patient/p", **provision)) is expected


def test_a_denial_counts_however_narrow_deep_or_unreadable() -> None:
    permit = research_consent("Patient/p")
    narrow = research_consent("Patient/p", "deny", actor=[{"reference": {"display": "somebody"}}])
    nested = research_consent("Patient/p", provision=[{"type": "deny", "period": {"end": "soon"}}])
    for denial in (narrow, nested):
        assert not permits(permit, denial)
        assert not permits(denial, rule=ConsentRule.NOT_DENIED)
    ended = research_consent("Patient/p", "deny", period={"end": "2026-10-31"})
    assert permits(permit, ended)


def test_consents_of_another_scope_or_state_say_nothing_of_research() -> None:
    treatment = {**research_consent("Patient/p"), "scope": {"coding": [{"code": "treatment"}]}}
    assert not permits(treatment)
    assert not permits({**research_consent("Patient/p"), "status": "rejected"})
    assert not permits()
    assert permits(treatment, rule=ConsentRule.NOT_DENIED)


def test_the_check_finds_whole_short_values_and_parts_of_long_ones() -> None:
    assert leaks('{"code": "4", "day": "2026-11-02"}', {"4", "2026", "1961-07-13"}) == 0
    assert leaks('{"note": "MRN-0001234x", "w": "ward7"}', {"MRN-0001234", "ward7"}) == 2
    assert leaks('{"note": "见张三丰"}', {"张三"}) == 1
