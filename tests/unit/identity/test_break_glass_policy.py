"""Each rule of break-glass is needed: a policy weakened in one of them fails the policy's own tests."""

from __future__ import annotations

import pytest

from foramen.identity.endpoints.break_glass import _STATUS
from foramen.identity.policy import evaluate, run_tests, sources
from foramen.identity.rights.break_glass import reason_codes, refused_rules
from foramen.identity.rights.break_glass_start import new_ticket, ticket_id
from foramen.identity.rights.break_glass_text import BREAK_GLASS_WORDS

FILE = "break_glass.rego"


@pytest.mark.parametrize(
    ("rule", "without"),
    [
        ("nothing_lent if input.lent == []", "nothing_lent if true"),
        ('"break-glass" in permissions.effective', "true"),
        ('not input.role in {"patient", "service"}', "true"),
        ("default recent := false", "default recent := true"),
        ("input.session.age_s >= 0", "true"),
        ("input.session.age_s <= recent_s", "true"),
        ("default factors := false", "default factors := true"),
        ("default one_patient := false", "default one_patient := true"),
        ("is_string(input.patient)\n", "true\n"),
        ("reasons[input.reason.code]", "true"),
        ("input.reason.length >= shortest_reason", "true"),
        ("input.reason.length <= longest_reason", "true"),
        ("input.started < input.limit", "true"),
        ("default none_in_force := false", "default none_in_force := true"),
        ("default running := false", "default running := true"),
        ("default own := false", "default own := true"),
        ("default same_session := false", "default same_session := true"),
        ("is_string(input.case.session)", "true"),
        ("default same_patient := false", "default same_patient := true"),
        ('"review-break-glass" in permissions.effective', "true"),
        ("default another := false", "default another := true"),
        ("default reached := false", "default reached := true"),
        ("is_string(input.institution)", "true"),
    ],
)
def test_a_weakened_policy_fails_its_tests(rule: str, without: str):
    assert rule in sources()[FILE]
    needed = {name: sources()[name] for name in ("permissions.rego", "break_glass_test.rego")}
    changed = {**needed, FILE: sources()[FILE].replace(rule, without)}
    assert any(not one.passed for one in run_tests(changed))


@pytest.mark.parametrize("question", ["start", "carry", "review"])
def test_every_rule_is_named_and_counts(question: str):
    answer = evaluate(f"break_glass.{question}", {})
    names = [one["rule"] for one in answer["rules"]]
    assert not answer["allow"]
    assert refused_rules(question, {}) == [one["rule"] for one in answer["rules"] if not one["holds"]]
    if question == "start":
        assert set(names) == set(_STATUS) | {"treats", "recent"}, "the page has an answer to each"


def test_reasons_have_words_in_an_order_and_other_comes_last():
    assert next(iter(reason_codes())) == "emergency-treatment"
    assert list(reason_codes())[-1] == "other"
    assert all(one["zh"] and one["en"] for one in reason_codes().values())


def test_words_are_there_in_both_languages():
    assert set(BREAK_GLASS_WORDS["zh"]) == set(BREAK_GLASS_WORDS["en"])
    assert all(f"btg_problem_{rule}" in BREAK_GLASS_WORDS["zh"] for rule in (*_STATUS, "used", "gone"))


def test_a_ticket_is_good_in_its_session_alone():
    ticket = new_ticket("secret", "s1")
    assert ticket_id("secret", "s1", ticket) is not None
    for secret, session, shown in (("secret", "s2", ticket), ("other", "s1", ticket), ("secret", "s1", ticket[:-1])):
        assert ticket_id(secret, session, shown) is None
    assert ticket_id("secret", "s1", "") is None
    assert ticket_id("secret", "s1", "x.y") is None
    assert ticket_id("secret", "s1", f"{ticket.partition('.')[0]}.é") is None
    assert new_ticket("secret", "s1") != ticket
