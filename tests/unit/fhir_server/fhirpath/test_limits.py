"""What an expression may cost: work, text, depth, regular expressions; and that nothing but its own error leaves."""

from __future__ import annotations

import copy
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.fhirpath.errors import FhirPathCostError, FhirPathError
from fhir_server.fhirpath.expression import compile_expression
from fhir_server.fhirpath.functions import names

WIDE = {"resourceType": "Patient", "name": [{"given": ["A"] * 50} for _ in range(50)]}


@pytest.mark.parametrize(
    "text",
    [
        "descendants().select(%resource.descendants()).select(%resource.descendants()).count()",
        "name.given.select(%resource.name.given).select(%resource.name.given.count())",
        "(1).repeat($this + 1).count()",
        "name.given.where(%copy = %resource)",
        "name.given.where(%copy in (%resource | %resource.contained))",
        "name.given.select(%copy | %resource).count()",
        "name.given.where('" + "a" * 24 + "!'.matches('^(a|aa|aaa)+$'))",
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
        + ".replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')" * 6,
        "'" + "a" * 60 + "!'.matches('^(a|aa|aaa)+$')",
        "'a'.matches('" + "a" * 3000 + "')",
    ],
)
def test_what_costs_too_much_is_stopped(text: str) -> None:
    start = time.process_time()
    with pytest.raises(FhirPathCostError) as caught:
        compile_expression(text).evaluate(WIDE, variables={"copy": copy.deepcopy(WIDE)})
    assert caught.value.issue_code == "too-costly"
    assert time.process_time() - start < 20


def test_deep_data_is_walked_without_recursion() -> None:
    data: dict[str, Any] = {"resourceType": "Questionnaire"}
    place = data
    for _ in range(3000):
        place["item"] = [{"linkId": "a"}]
        place = place["item"][0]
    assert compile_expression("descendants().linkId.count()").evaluate(data) == [3000]
    assert compile_expression("repeat(item.where(false) | item.skip(1)).count()").evaluate(data) == [0]
    with pytest.raises(FhirPathCostError):
        compile_expression("item.distinct() | item").evaluate(data)


@pytest.mark.parametrize(
    "text", ["value.value.abs()", "value.value * 2", "value.value.ceiling()", "value > 3 'mm'", "value.value.round(2)"]
)
@pytest.mark.parametrize("number", [10**4000, 1e308, Decimal("1e999999"), Decimal("NaN"), float("inf")], ids=range(5))
def test_huge_numbers_cost_nothing(text: str, number: object) -> None:
    data = {"resourceType": "Observation", "valueQuantity": {"value": number, "unit": "1"}}
    try:
        found = compile_expression(text).evaluate(data)
    except FhirPathError:
        return
    assert len(str(found)) < 500


ARGUMENTS = ("", "1", "-1", "'a'", "$this", "{}", "name", "true", "@2020", "4 'g'", "1.5", "'('", "(1 | 'a')")
INPUTS = (*ARGUMENTS[1:], "name.given", "birthDate", "%resource", "descendants()", "value", "'2015-02-04'", "@T10:00")
DATA = {
    "resourceType": "Patient",
    "name": [{"given": ["SYNTHETIC", None], "_given": [None, {"id": "a"}]}],
    "birthDate": "1974-12-25",
    "deceasedBoolean": True,
}
OPERATORS = "= != ~ !~ < <= > >= + - * / div mod & | in contains and or xor implies"
CALLS = st.builds(
    lambda base, name, arguments: f"({base}).{name}({', '.join(argument for argument in arguments if argument)})",
    st.sampled_from(INPUTS),
    st.sampled_from(sorted(names())),
    st.lists(st.sampled_from(ARGUMENTS), max_size=3),
)
OPERATIONS = st.builds(
    lambda left, operator, right: f"({left}) {operator} ({right})",
    st.sampled_from(INPUTS) | CALLS,
    st.sampled_from(OPERATORS.split()),
    st.sampled_from(INPUTS) | CALLS,
)


@given(CALLS | OPERATIONS, st.booleans())
@settings(max_examples=600, deadline=None)
def test_nothing_but_its_own_error_leaves(text: str, strict: bool) -> None:
    message = ""
    try:
        compile_expression(text, strict=strict).evaluate(DATA)
    except FhirPathError as error:
        message = error.message
    assert "1974" not in message
    assert "SYNTHETIC" not in message
