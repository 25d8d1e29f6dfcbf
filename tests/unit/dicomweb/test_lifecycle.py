"""Arithmetic of room and retention."""

from __future__ import annotations

from datetime import date

import pytest

from dicomweb.lifecycle.capacity import TB, Plan, StudySize, by_modality, forecast
from dicomweb.lifecycle.retention import RetentionRules, keep_until, require_expired, strictest
from foramen.kernel.errors import ConflictError

RULES = RetentionRules(inpatient_years=30, outpatient_years=15, own_output_years=30)
SIZES = by_modality([StudySize("MR", 100, 100_000_000), StudySize("MR", 300, 300_000_000), StudySize("CT", 500, 10**9)])


def test_studies_are_summed_by_modality():
    ct, mr = SIZES
    assert (ct.modality, ct.studies, ct.mean_size) == ("CT", 1, 10**9)
    assert (mr.studies, mr.instances, mr.mean_size, mr.median_size, mr.largest) == (2, 400, 2e8, 2e8, 3e8)


def test_the_forecast_is_the_plain_product():
    plan = Plan(128, {"MR": 100, "CT": 50}, copies=1, reserve=0.0)
    found = forecast(0, SIZES, plan)
    assert found.per_day == 100 * 2e8 + 50 * 1e9
    assert found.years[0].added == pytest.approx(found.per_day * 365)
    assert found.days_left == int(128 * TB / found.per_day)
    assert [year.full for year in found.years].index(True) == found.days_left // 365


def test_copies_reserve_growth_and_compression_count():
    plain = forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.0))
    twice = forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.0, copies=2))
    half = forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.0, copies=2, compression=0.5))
    grown = forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.0, growth_per_year=0.2))
    assert twice.per_day == 2 * plain.per_day
    assert half.per_day == plain.per_day
    assert grown.days_left < plain.days_left
    assert forecast(0, SIZES, Plan(128, {"CT": 200}, reserve=0.5)).usable == 64 * TB


def test_full_is_full_and_a_modality_that_was_never_measured_is_no_guess():
    assert forecast(200 * TB, SIZES, Plan(128, {"CT": 1})).days_left == 0
    assert forecast(0, SIZES, Plan(128, {})).days_left is None
    with pytest.raises(ValueError, match="XA"):
        forecast(0, SIZES, Plan(128, {"XA": 1}))


def test_retention_counts_years_from_the_day_on():
    assert keep_until("outpatient", date(2020, 2, 29), RULES) == date(2035, 3, 1)
    assert keep_until("inpatient", date(2020, 5, 1), RULES) == date(2050, 5, 1)
    require_expired("outpatient", date(2000, 1, 1), date(2015, 1, 1), RULES)
    with pytest.raises(ConflictError):
        require_expired("outpatient", date(2000, 1, 1), date(2014, 12, 31), RULES)
    with pytest.raises(ConflictError):
        require_expired("outpatient", None, date(2100, 1, 1), RULES)


def test_the_longest_period_wins_and_the_unknown_counts_as_the_longest():
    assert strictest(["outpatient", "inpatient"], RULES) == "inpatient"
    assert strictest([], RULES) == "inpatient"
