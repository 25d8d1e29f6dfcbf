"""The grammar of `_filter`: and before or, quoted values, bounded nesting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.search.filters import Junction, Negation, Test, parse_filter
from foramen.kernel.errors import InvalidRequestError


def leaf(text: str) -> Test:
    return Test(text, "eq", "1")


def test_and_binds_more_tightly_than_or() -> None:
    assert parse_filter("a eq 1 or b eq 1 and c eq 1", 5) == Junction(
        "or", (leaf("a"), Junction("and", (leaf("b"), leaf("c"))))
    )
    assert parse_filter("(a eq 1 or b eq 1) AND not(c eq 1)", 5) == Junction(
        "and", (Junction("or", (leaf("a"), leaf("b"))), Negation(leaf("c")))
    )


def test_values_may_be_quoted() -> None:
    assert parse_filter(r'name co "a \"b\" ) or"', 5) == Test("name", "co", 'a "b" ) or')
    assert parse_filter("value ge 5|http://unitsofmeasure.org|mm", 5).value == "5|http://unitsofmeasure.org|mm"  # type: ignore[union-attr]


def test_not_can_be_a_name() -> None:
    assert parse_filter("not eq 1", 5) == leaf("not")


@pytest.mark.parametrize("depth", [3, 10])
def test_depth_is_bounded(depth: int) -> None:
    assert parse_filter("(" * depth + "a eq 1" + ")" * depth, depth)
    with pytest.raises(InvalidRequestError) as refusal:
        parse_filter("(" * (depth + 1) + "a eq 1" + ")" * (depth + 1), depth)
    assert refusal.value.issue_code == "too-costly"


@given(st.text(alphabet='ab()[]"\\ eqandornot1.:_', max_size=40))
def test_any_text_is_a_filter_or_a_clear_refusal(text: str) -> None:
    message, code = "_filter", "value"
    try:
        parse_filter(text, 10)
    except InvalidRequestError as exc:
        message, code = exc.message, exc.issue_code
    assert message.startswith("_filter")
    assert code in ("value", "not-supported", "too-costly")
