"""Conditions: three truth values, missing facts, and a grammar that executes nothing."""

from __future__ import annotations

import pytest

from ai_services.recommendation.conditions import ConditionError, FactValue, OneOf, Truth, parse_condition

KNOWN = ("a", "b", "n", "m", "code", "redflag.ces", "options")
HERNIATED = OneOf(frozenset(("protrusion", "extrusion", "sequestration")))


def evaluate(text: str, **facts: FactValue) -> Truth:
    return parse_condition(text, KNOWN).evaluate(facts)


@pytest.mark.parametrize(
    ("text", "facts", "expected"),
    [
        ("a", {"a": True}, True),
        ("a", {"a": False}, False),
        ("not a", {"a": False}, True),
        ("a and b", {"a": True, "b": False}, False),
        ("a or b", {"a": True, "b": False}, True),
        ("n >= 4", {"n": 4}, True),
        ("n < 4", {"n": 4}, False),
        ("code in {'x', 'y'}", {"code": "x"}, True),
        ("code not in {'x', 'y'}", {"code": "x"}, False),
        ("code < 'C'", {"code": "A4"}, True),
        ("code >= 'C'", {"code": "C"}, True),
        ("n < m + 2 * 1", {"n": 3, "m": 2}, True),
        ("code in options", {"code": "O06", "options": frozenset(("O06",))}, True),
    ],
)
def test_known_facts_decide(text: str, facts: dict[str, FactValue], expected: bool) -> None:
    assert evaluate(text, **facts) == Truth(expected)


def test_dotted_names_are_facts() -> None:
    condition = parse_condition("redflag.ces", KNOWN)
    assert condition.facts == {"redflag.ces"}
    assert condition.evaluate({"redflag.ces": True}).value is True


def test_unknown_stays_open_and_names_what_is_missing() -> None:
    assert evaluate("a and b", a=True) == Truth(None, frozenset("b"))
    assert evaluate("n < m + 2", n=3) == Truth(None, frozenset("m"))


def test_a_decided_part_closes_the_rest() -> None:
    assert evaluate("a and b", a=False) == Truth(False)
    assert evaluate("a or b", a=True) == Truth(True)


def test_unknown_can_be_asked_for() -> None:
    assert evaluate("unknown(a)") == Truth(True)
    assert evaluate("unknown(a)", a=False) == Truth(False)


def test_a_partly_known_value_decides_where_every_possibility_agrees() -> None:
    assert evaluate("code in {'normal', 'bulge'}", code=HERNIATED) == Truth(False)
    assert evaluate("code in {'protrusion', 'extrusion', 'sequestration'}", code=HERNIATED) == Truth(True)
    assert evaluate("code == 'protrusion'", code=HERNIATED) == Truth(None, frozenset(("code",)))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "a.__class__",
        "nobody",
        "a if b else a",
        "(lambda: a)()",
        "[x for x in code]",
        "a <",
        "1 < n < 4",
    ],
)
def test_anything_else_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(ConditionError):
        parse_condition(text, KNOWN)
