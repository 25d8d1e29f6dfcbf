"""Dates as ranges."""
# ruff: noqa: E501 - tables

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.search.dates import BEGINNING, END, date_range, period_range

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def shown(text: str) -> tuple[str, str] | None:
    found = date_range(text)
    if found is None:
        return None
    low, high = (EPOCH + timedelta(microseconds=value) for value in found)
    return low.isoformat(), high.isoformat()


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2020", "2020-01-01T00:00:00+00:00", "2021-01-01T00:00:00+00:00"),
        ("2020-02", "2020-02-01T00:00:00+00:00", "2020-03-01T00:00:00+00:00"),
        ("2021-02", "2021-02-01T00:00:00+00:00", "2021-03-01T00:00:00+00:00"),
        ("2020-12", "2020-12-01T00:00:00+00:00", "2021-01-01T00:00:00+00:00"),
        ("2020-12-31", "2020-12-31T00:00:00+00:00", "2021-01-01T00:00:00+00:00"),
        ("2020-01-01T10:00:00+08:00", "2020-01-01T02:00:00+00:00", "2020-01-01T02:00:01+00:00"),
        ("2020-01-01T10:00:00-05:30", "2020-01-01T15:30:00+00:00", "2020-01-01T15:30:01+00:00"),
        ("2020-01-01T10:00Z", "2020-01-01T10:00:00+00:00", "2020-01-01T10:01:00+00:00"),
        ("2020-01-01T10:00:00.5Z", "2020-01-01T10:00:00.500000+00:00", "2020-01-01T10:00:00.600000+00:00"),
        ("2020-01-01T10:00:00.123Z", "2020-01-01T10:00:00.123000+00:00", "2020-01-01T10:00:00.124000+00:00"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00", "2017-01-01T00:00:00+00:00"),
    ],
)
def test_ranges(text: str, low: str, high: str) -> None:
    assert shown(text) == (low, high)


@pytest.mark.parametrize(
    "text",
    ["", "20", "2020-1", "2020-13", "2020-00", "2021-02-29", "2020-01-32", "2020-01-01T24:00:00Z", "2020-01-01T10:60:00Z",
     "2020-01-01T10Z", "0000", "٢٠٢٠", "2020-01-01 10:00", "2020-01-01T10:00:00.Z", " 2020"],
)  # fmt: skip
def test_what_is_no_date(text: str) -> None:
    assert date_range(text) is None


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001
def test_each_precision_contains_the_finer_one(moment: datetime) -> None:
    text = moment.isoformat(timespec="microseconds")
    forms = [text[:4], text[:7], text[:10], text[:19] + "Z", text[:23] + "Z", text[:26] + "Z"]
    ranges = [date_range(form) for form in forms]
    for outer, inner in pairwise(ranges):
        assert outer is not None
        assert inner is not None
        assert outer[0] <= inner[0] < inner[1] <= outer[1]


def test_open_periods() -> None:
    assert period_range({"start": "2020"}) == (date_range("2020")[0], END)  # type: ignore[index]
    assert period_range({"end": "2020"}) == (BEGINNING, date_range("2020")[1])  # type: ignore[index]
    assert period_range({}) is None
