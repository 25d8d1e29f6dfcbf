"""Quantities in base units: the same length is the same number, whichever unit it was written in."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from fhir_server.search.ranges import quantity_value
from fhir_server.search.values import canonical_range, quantity_values

UCUM = "http://unitsofmeasure.org"


@given(st.decimals(min_value=-10_000, max_value=10_000, places=4, allow_nan=False))
def test_units_of_one_dimension_agree(number: Decimal) -> None:
    asked = [(number * 10, "mm"), (number, "cm"), (number / 100, "m"), (number / 100_000, "km")]
    found = {canonical_range(float(value), float(value), unit) for value, unit in asked}
    assert len(found) == 1


def test_a_quantity_is_found_plain_by_unit_and_in_base_units() -> None:
    item = {"value": 5, "unit": "millimetre", "system": UCUM, "code": "mm"}
    assert len(quantity_values(item, "Quantity")) == 4
    assert (0, 5.0, 5.0) in quantity_values(item, "Quantity")
    assert canonical_range(5, 5, "mm") in quantity_values(item, "Quantity")
    assert len(quantity_values({"value": 5, "unit": "mm", "system": UCUM, "code": "mm"}, "Quantity")) == 3
    assert len(quantity_values({"value": 5, "system": "urn:own", "code": "x"}, "Quantity")) == 3


def test_ranges_open_ends_and_sampled_data() -> None:
    infinite = float("inf")
    assert (0, 5.0, infinite) in quantity_values({"value": 5, "comparator": ">="}, "Quantity")
    assert (0, -infinite, 7.0) in quantity_values({"high": {"value": 7}}, "Range")
    assert quantity_values({}, "Range") == []
    sampled = {"origin": {"value": 10}, "factor": 2, "data": "1 E 5 L -3.5 U"}
    assert (0, 3.0, 20.0) in quantity_values(sampled, "SampledData")
    assert quantity_values({"origin": {"value": 10}, "data": "E U L"}, "SampledData") == []
    assert quantity_values({"origin": {"value": 10}}, "SampledData") == []
    money = quantity_values({"value": 9, "currency": "EUR"}, "Money")
    assert (quantity_value("x", "9|urn:iso:std:iso:4217|EUR")[0], 9.0, 9.0) in money


def test_implied_precision_is_converted_with_the_value() -> None:
    unit, found = quantity_value("x", f"5|{UCUM}|mm")
    assert (found.prefix, found.low, found.high) == ("eq", 0.0045, 0.0055)
    assert unit == quantity_value("x", f"gt3|{UCUM}|m")[0]


def test_a_scale_that_runs_the_other_way_turns_the_prefix() -> None:
    assert quantity_value("x", f"gt7|{UCUM}|[pH]")[1].prefix == "lt"
    assert quantity_value("x", f"gt37|{UCUM}|Cel")[1].prefix == "gt"
