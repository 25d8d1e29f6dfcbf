"""Equality, order and arithmetic where precision, units or missing values matter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhirpath.expression import compile_expression
from fhir_server.fhirpath.node import Node
from fhir_server.fhirpath.temporal import compare, parse_temporal
from fhir_server.fhirpath.values import equal, key

YES, NO, UNKNOWN = [True], [False], []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@2015 = @2015", YES),
        ("@2015 = @2015-01", UNKNOWN),
        ("@2015 = @2016-01", NO),
        ("@2015 < @2015-06", UNKNOWN),
        ("@2014-12 < @2015", YES),
        ("@2015-02-04T10:00:00Z = @2015-02-04T11:00:00+01:00", YES),
        ("@2015-02-04T10:00:00 = @2015-02-04T10:00:00Z", UNKNOWN),
        ("@2015-02-04T10:00:00 < @2015-02-06T10:00:00Z", YES),
        ("@2015-02-04 < @2015-02-05T01:00:00+14:00", UNKNOWN),
        ("@2015-02-04T10:00 = @2015-02-04T10:00:00", UNKNOWN),
        ("@2015-02-04T10:00:00.0 = @2015-02-04T10:00:00", YES),
        ("@T10:00 < @T10:01", YES),
        ("@T10 = @2015", NO),
        ("1 'cm' = 10 'mm'", YES),
        ("1 'cm' = 1 's'", NO),
        ("1 'cm' > 9 'mm'", YES),
        ("1 'cm' > 9 's'", UNKNOWN),
        ("5 'mm' = 0.5 'cm'", YES),
        ("37 'Cel' = 310.15 'K'", YES),
        ("1 year = 12 months", YES),
        ("1 year = 1 'a'", UNKNOWN),
        ("1 day = 24 hours", YES),
        ("1 = 1 '1'", YES),
        ("1 'nonsense' = 1 'nonsense'", YES),
        ("'a' = 1", NO),
        ("1 = 1.0", YES),
        ("true = 1", NO),
        ("(1|2) = (2|1)", NO),
        ("(1|2) ~ (2|1)", YES),
        ("'A  b' ~ 'a B'", YES),
        ("0.6666 ~ 0.67", YES),
        ("{} ~ {}", YES),
        ("{} = {}", UNKNOWN),
        ("1 in {}", NO),
        ("{} in (1|2)", UNKNOWN),
    ],
)
def test_comparison(text: str, expected: list[bool]) -> None:
    assert compile_expression(text).evaluate({}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@2020-02-29 + 1 year", "2021-02-28"),
        ("@2020-01-31 + 1 month", "2020-02-29"),
        ("@2020-03-31 - 1 month", "2020-02-29"),
        ("@2020 + 13 months", "2021"),
        ("@2020-01 + 40 days", "2020-02"),
        ("@2020-12-31T23:59:59.500Z + 0.5 seconds", "2021-01-01T00:00:00.000Z"),
        ("@T23:30 + 1 hour", "T00:30"),
        ("@9999-12-31 + 1 day", None),
        ("@2020-01-01 + 99999999999 years", None),
        ("2147483647 + 1", None),
        ("10.power(400)", None),
        ("1 / 0", None),
        ("(-1).sqrt()", None),
        ("0.ln()", None),
        ("5 mod 0", None),
        ("7.5 div 2", 3),
        ("-7 mod 2", -1),
        ("2.5.round()", 3),
        ("'abc'.substring(1, -5)", ""),
    ],
)
def test_arithmetic(text: str, expected: object) -> None:
    found = compile_expression(text).evaluate({})
    assert found == (
        [] if expected is None else [expected.removeprefix("T") if isinstance(expected, str) else expected]
    )


@given(st.dates(), st.dates())
def test_order_of_days_is_the_order_of_the_calendar(left: object, right: object) -> None:
    first, second = parse_temporal(str(left), "Date"), parse_temporal(str(right), "Date")
    assert first is not None
    assert second is not None
    assert compare(first, second) == (str(left) > str(right)) - (str(left) < str(right))
    assert first.text() == str(left)


def test_there_is_no_such_date() -> None:
    for text in ("2015-02-30", "0000", "2015-1", "2015-02-04T", "2015-02-04T25:00", "2015-02-04T10:60", "x", "9" * 500):
        assert parse_temporal(text, "Date") is None
    assert parse_temporal("2015-02-04T24:00:00Z", "DateTime") is None
    assert parse_temporal("2016-12-31T23:59:60Z", "DateTime") is not None


VALUES = st.one_of(
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from(["a", "b", "1"]),
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([1, 1.0, "x", True]), max_size=2),
)
TYPES = {bool: "boolean", int: "integer", float: "decimal", str: "string", dict: "Coding"}


@given(VALUES, VALUES)
def test_keys_are_equal_when_values_are(left: object, right: object) -> None:
    spent: list[int] = []
    first, second = Node(left, TYPES[type(left)]), Node(right, TYPES[type(right)])
    assert (equal(first, second, spent.append) is True) == (key(first, spent.append) == key(second, spent.append))
