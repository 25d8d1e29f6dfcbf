"""Drift and overrides of SYNTHETIC results: what alarms, what cannot be told, and what is not shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from ai_services.monitoring.distributions import Sample, compare
from ai_services.monitoring.measure import measure_report, same
from ai_services.monitoring.observed import Value, code_of, value_of
from ai_services.monitoring.overrides import Decided, by_group, overall, wilson
from ai_services.monitoring.page import page_of
from ai_services.monitoring.reference import WatchReferenceError, read_reference, written
from ai_services.monitoring.strata import age_band
from ai_services.monitoring.thresholds import DEFAULT, ThresholdError, read_thresholds
from ai_services.monitoring.watch import Watch, latest, samples_of
from terminology import systems
from tests.builders.watches import LIMITS, PERIOD, reference_of, reports, watched


def outcomes(result: Watch) -> dict[str, str]:
    return {item.name: item.outcome for item in result.drift}


def test_what_drifts_alarms_and_what_does_not_is_steady() -> None:
    known = reference_of(reports(80, 1))
    moved = outcomes(watched(reports(60, 2, shift=1.0), known))
    assert moved["grade-expected"] == moved["grade"] == "alarm"
    assert moved["grade-confidence"] == moved["morphology"] == "steady"
    assert set(outcomes(watched(reports(60, 3), known)).values()) - {"too-few"} == {"steady"}
    # The record holds no measurements here: that cannot be told, and so the whole is not steady.
    assert outcomes(watched(reports(60, 3), known))["canal"] == "too-few"
    assert watched(reports(60, 3), known).outcome == "too-few"


def test_discs_of_one_patient_are_not_many_patients() -> None:
    """Steady patients with many alike discs: taken one by one their discs would alarm far too often."""
    thresholds = replace(LIMITS, psi=0.0, ks=0.0, permutations=399, family_error=0.1)
    alarms = 0
    for seed in range(24):
        generator = np.random.default_rng(seed)

        def sample(count: int, generator: np.random.Generator = generator) -> Sample:
            means = generator.normal(3, 1, count)
            return Sample(tuple(tuple(generator.normal(mean, 0.05, 8)) for mean in means))

        alarms += compare("grade", sample(35), sample(35), thresholds, 1).outcome == "alarm"
    assert alarms <= 7  # 10 % expected; a right test gives more than 7 of 24 in 2 of 1 000 runs


def test_too_few_and_no_reference_are_never_steady() -> None:
    few, enough = reports(LIMITS.patients - 1, 4), reports(60, 5)
    assert set(outcomes(watched(few, reference_of(enough))).values()) == {"too-few"}
    assert set(outcomes(watched(enough, reference_of(few))).values()) == {"too-few"}
    assert set(outcomes(watched(enough, None)).values()) == {"no-reference"}
    for result in (watched(few, reference_of(enough)), watched(enough, None), watched([], reference_of(enough))):
        assert result.outcome == "too-few"
    assert watched([], None).reports is None


def decided(group: str, count: int, overridden: int, prefix: str = "") -> list[Decided]:
    return [Decided(f"{prefix}{group}{n}", n < overridden, {"site": group}) for n in range(count)]


def test_a_site_that_overrides_more_than_the_rest_alarms() -> None:
    found = by_group([*decided("a", 60, 6), *decided("b", 60, 5), *decided("c", 40, 20)], "site", LIMITS, 12)
    assert {name: rate.outcome for name, rate in found.items()} == {"a": "steady", "b": "steady", "c": "alarm"}
    assert overall([*decided("a", 60, 40)], LIMITS).outcome == "alarm"
    assert overall(decided("a", LIMITS.decided - 1, 0), LIMITS).outcome == "too-few"


def test_small_cells_are_suppressed_and_cannot_be_worked_out_from_the_total() -> None:
    found = by_group([*decided("a", 60, 6), *decided("b", 25, 5), *decided("c", 3, 3)], "site", LIMITS, 12)
    assert found["c"].outcome == found["b"].outcome == "suppressed"
    assert found["c"].decided is found["c"].value is found["b"].decided is None
    assert found["a"].decided == 60
    # Many reports of few patients are as telling.
    same_person = [Decided("one", True, {"site": "d"}) for _ in range(50)]
    assert by_group([*same_person, *decided("a", 60, 6)], "site", LIMITS, 12)["d"].outcome == "suppressed"


def test_wilson_is_as_published() -> None:
    # Newcombe 1998 (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_of_several_results_of_a_study_the_decided_one_counts() -> None:
    (first,) = reports(1, 6)
    newer = replace(first, reference="DiagnosticReport/z", written="2026-09-01T00:00:00Z", decision=None)
    assert latest([newer, first]) == [first]


def test_the_measure_report_says_the_same_again_and_hides_what_the_page_hides() -> None:
    found = reports(60, 7)
    result = watched(found, reference_of(reports(80, 8)), small=4)
    made = measure_report(result, "2026-10-01T08:00:00Z")
    assert same(made, measure_report(watched(found[::-1], reference_of(reports(80, 8))), "x")) is False  # other groups
    again = watched(found, reference_of(reports(80, 8)), small=4)
    assert same({**made, "id": "1", "meta": {**made["meta"], "versionId": "3"}}, measure_report(again, "later"))
    strata = made["group"][0]["stratifier"][0]["stratum"]
    small = next(item for item in strata if item["value"]["text"] == "small")
    assert "population" not in small
    assert small["measureScore"]["extension"][0]["valueCode"] == "masked"
    for language in ("zh-CN", "en-US"):
        text = page_of(result, "now", language, "x.html")
        assert f'lang="{language}"' in text
        assert text.count("<svg") > 5
    assert "不等于没有变化" in page_of(watched(found, None), "now", "zh-CN", "x.html")


def test_a_reference_names_no_person_and_is_of_one_version(tmp_path: Path) -> None:
    found = reports(40, 9, prefix="MRN-SYNTHETIC-")
    file = tmp_path / "reference.json"
    file.write_bytes(written("lumbar_mr", "0.2.0", PERIOD, samples_of(found)))
    assert file.read_bytes() == written("lumbar_mr", "0.2.0", PERIOD, samples_of(found[::-1]))
    assert "MRN" not in file.read_text(encoding="utf-8")
    assert read_reference(file, "lumbar_mr", "0.2.0").samples == samples_of(found)
    with pytest.raises(WatchReferenceError):
        read_reference(file, "lumbar_mr", "0.3.0")


def test_thresholds_are_data_and_are_checked(tmp_path: Path) -> None:
    document = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    for place, value in ((("drift", "psi"), "much"), (("minimum", "cell"), 1), (("drift", "pis"), 0.1)):
        changed = {**document, place[0]: {**document[place[0]], place[1]: value}}
        file = tmp_path / "thresholds.yaml"
        file.write_text(yaml.safe_dump(changed), encoding="utf-8")
        with pytest.raises(ThresholdError, match=r"\.".join(place)):
            read_thresholds(file)


def test_words_are_never_values_whatever_system_they_are_said_to_be_of() -> None:
    def concept(code: str, system: str = systems.FINDING_VALUE) -> dict[str, object]:
        return {"coding": [{"system": system, "code": code}], "text": "张三"}

    assert value_of({"valueCodeableConcept": concept("grade-2")}) == Value("code", "grade-2", systems.FINDING_VALUE)
    assert value_of({"valueCodeableConcept": concept("张三")}) is None
    assert value_of({"valueCodeableConcept": concept("Anna Muster")}) is None
    assert value_of({"valueCodeableConcept": concept("x", "https://elsewhere.example")}) is None
    assert value_of({"valueString": "张三"}) is None
    assert value_of({"valueQuantity": {"value": 3, "code": "mm of Anna"}}) is None
    assert code_of(concept("L4 of Anna", systems.LEVEL), systems.LEVEL) is None


def test_an_age_that_is_not_sure_is_unknown() -> None:
    assert age_band("1961-07-13", "2026-07-12") == "60-79"
    assert age_band("1986-07-13", "2026-07-12") == "0-39"
    assert age_band("", "2026-07-12") == age_band("2030-01-01", "2026-07-12") == "unknown"
