"""Rule by rule: facts on which it speaks, facts on which it stays silent; and the wording a board reviews."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ai_services.recommendation.conditions import FactValue, OneOf
from ai_services.recommendation.evaluate import evaluate
from ai_services.recommendation.rule_base import RuleBase, load_rule_base

Facts = dict[str, FactValue]
ALL = tuple(f"O{number:02d}" for number in range(1, 14))
SURG, DECOMP, INVASIVE = ALL[2:], ALL[3:11], ALL[1:]
PLAN: Facts = {"plan.cannula_od_mm": 7.5, "plan.margin_mm": 1.0}
NO_FUSION: Facts = {
    "recurrent": False,
    "instability": False,
    "chronic_lbp": False,
    "severe_degeneration": False,
    "heavy_labour": False,
}

# rule → (facts on which it speaks, facts on which it is silent, {option: effects} of the speaking case).
TABLE: dict[str, tuple[Facts, Facts, dict[str, set[str]]]] = {
    "R01": (
        {"redflag.ces": True},
        {"redflag.ces": False},
        {"O01": {"HOLD", "C"}, "O04": {"HOLD", "E"}, "O10": {"HOLD", "E"}, "O11": {"HOLD"}},
    ),
    "R02": ({}, {"redflag.ces": False}, {"O01": {"HOLD"}, "O13": {"HOLD"}}),
    "R03": ({"redflag.other": "tumour"}, {"redflag.other": "none"}, {"O03": {"HOLD"}}),
    "R04": ({"mri.quality": "low_resolution"}, {"mri.quality": "ok"}, {"O06": {"HOLD"}}),
    "R05": ({"side": "left"}, {"side": "left", "exam.motor": 5}, {"O04": {"HOLD"}}),
    "R06": ({"concord": False}, {"concord": True}, {"O04": {"RC"}}),
    "R07": (
        {"all_levels.no_herniation": True, "all_levels.F11_max": 1, "all_levels.F08_max": "A2"},
        {"all_levels.no_herniation": True, "all_levels.F11_max": 2, "all_levels.F08_max": "A2"},
        {"O03": {"C"}, "O13": {"C"}},
    ),
    "R08": (
        {"duration_weeks": 5.0, "exam.motor": 4, "severe_uncontrolled_pain": False},
        {"duration_weeks": 5.0, "exam.motor": 4, "severe_uncontrolled_pain": True},
        {"O04": {"RC"}},
    ),
    "R09": (
        {"conservative.weeks": 6.0, "conservative.failed": True, "concord": True, "leg_dominant": True},
        {"conservative.weeks": 5.0, "conservative.failed": True, "concord": True, "leg_dominant": True},
        {"O04": {"E", "PREF+"}, "O11": {"E", "PREF+"}},
    ),
    "R10": ({"duration_weeks": 27.0}, {"duration_weeks": 26.0}, {"O08": {"FLAG"}}),
    "R11": ({"motor.progressive": True}, {"motor.progressive": False}, {"O01": {"RC"}}),
    "R12": ({"exam.motor": 3}, {"exam.motor": 4}, {"O01": {"RC"}}),
    "R13": (
        {"conservative.failed": True, "conservative.weeks": 12.0},
        {"conservative.failed": True, "conservative.weeks": 11.0},
        {"O01": {"RC"}},
    ),
    "R14": (
        {"F01": "extrusion", "exam.motor": 5, "duration_weeks": 11.0},
        {"F01": "protrusion", "exam.motor": 5, "duration_weeks": 11.0},
        {"O01": {"PREF+", "FLAG"}},
    ),
    "R15": ({"back_dominant": True, "pain.leg_nrs": 2}, {"back_dominant": True, "pain.leg_nrs": 3}, {"O04": {"RC"}}),
    "R16": ({"F04": 1}, {"F04": 2}, {"O04": {"RC"}}),
    "R17": ({"F04": 2, "F05": "AB", "concord": True}, {"F04": 2, "F05": "A", "concord": True}, {"O05": {"PREF+"}}),
    "R18": ({"numbering.confident": False}, {"numbering.confident": True}, {"O06": {"FLAG"}}),
    "R19": ({"coagulopathy": True}, {"coagulopathy": False}, {"O02": {"C"}, "O13": {"C"}}),
    "R20": ({"infection.active": True}, {"infection.active": False}, {"O02": {"C"}}),
    "R21": ({"asa": 4}, {"asa": 3}, {"O04": {"RC"}, "O13": {"RC"}}),
    "R22": ({"pregnancy": True}, {"pregnancy": False}, {"O02": {"RC"}, "O03": {"RC"}, "O06": {"RC"}}),
    "R23": (
        {"site.available_options": frozenset(ALL[:5]), "surgeon.privileges": frozenset(ALL)},
        {"site.available_options": frozenset(ALL), "surgeon.privileges": frozenset(ALL)},
        {"O06": {"FLAG"}},
    ),
    "R24": (
        {"leg_dominant": True, "concord": True, "exam.motor": 4},
        {"leg_dominant": False, "concord": True, "exam.motor": 4},
        {"O02": {"E"}},
    ),
    "R25": ({"motor.progressive": True}, {"motor.progressive": False, "exam.motor": 4}, {"O02": {"RC"}}),
    "R26": ({"allergy.injection": True}, {"allergy.injection": False}, {"O02": {"C"}}),
    "R27": (
        {"tfesi.response_pct": 50.0, "tfesi.relapse": True},
        {"tfesi.response_pct": 49.0, "tfesi.relapse": True},
        {"O02": {"E", "FLAG"}},
    ),
    "R28": (
        {"F01": "protrusion", "F01.contained": True, "leg_dominant": True, "F08": "A1", "F13": 0.3},
        {"F01": "protrusion", "F01.contained": True, "leg_dominant": True, "F08": "B", "F13": 0.3},
        {"O03": {"RC"}},
    ),
    "R29": (
        {"F01": "sequestration"},
        {"F01": "protrusion", "F08": "A1", "F18.calcified": False, "exam.motor": 4},
        {"O03": {"C"}},
    ),
    "R30": ({"F02": "subarticular"}, {"F02": "foraminal"}, {"O04": {"E"}}),
    "R31": ({"F02": "extraforaminal"}, {"F02": "foraminal"}, {"O04": {"RC"}, "O06": {"PREF+"}, "O11": {"PREF+"}}),
    "R32": (
        {"F02": "central", "symptomatic_levels": 1},
        {"F02": "central", "symptomatic_levels": 2},
        {"O05": {"E"}},
    ),
    "R33": ({"recurrent": True}, {"recurrent": False}, {"O05": {"RC"}}),
    "R34": ({"level": "L4-L5", "F02": "central"}, {"level": "L5-S1", "F02": "central"}, {"O06": {"E"}}),
    "R35": ({"level": "L5-S1", "F19": "I"}, {"level": "L5-S1", "F19": "II"}, {"O06": {"E"}}),
    "R36": ({"level": "L5-S1", "F19": "II"}, {"level": "L4-L5", "F19": "II"}, {"O06": {"FLAG"}}),
    "R37": ({"level": "L5-S1", "F19": "III"}, {"level": "L5-S1", "F19": "I"}, {"O06": {"RC"}, "O07": {"PREF+"}}),
    "R38": ({"level": "L2-L3"}, {"level": "L3-L4"}, {"O06": {"RC"}}),
    "R39": ({"F03.lee_zone": 4}, {"F03.lee_zone": 2}, {"O06": {"RC"}}),
    "R40": ({**PLAN, "F21": 9.0}, {**PLAN, "F21": 9.5}, {"O06": {"FLAG", "C"}}),
    "R41": ({"plan.hits_hard_structure": True}, {"plan.hits_hard_structure": False}, {"O02": {"C"}, "O06": {"C"}}),
    "R42": ({"F08": "D"}, {"F08": "B"}, {"O06": {"RC"}}),
    "R43": ({"F18.calcified": True}, {"F18.calcified": False}, {"O06": {"RC"}, "O07": {"RC"}}),
    "R44": ({"symptomatic_levels": 2}, {"symptomatic_levels": 1}, {"O05": {"RC"}, "O06": {"RC"}, "O07": {"RC"}}),
    "R45": ({"surgeon.case_count": 19}, {"surgeon.case_count": 20}, {"O06": {"FLAG"}}),
    "R46": (
        {**PLAN, "level": "L5-S1", "F20.width_mm": 9.5, "F02": "central"},
        {**PLAN, "level": "L5-S1", "F20.width_mm": 9.4, "F02": "central"},
        {"O07": {"E", "PREF+"}},
    ),
    "R47": ({"level": "L4-L5"}, {"level": "L5-S1"}, {"O07": {"RC", "FLAG"}}),
    "R48": ({"F02": "foraminal"}, {"F02": "central"}, {"O07": {"C"}}),
    "R49": ({"F03.lee_zone": 1}, {"F03.lee_zone": 3}, {"O07": {"E"}}),
    "R50": ({"F02": "central"}, {"F02": "extraforaminal"}, {"O08": {"E"}}),
    "R51": ({"F02": "extraforaminal"}, {"F02": "subarticular"}, {"O08": {"E"}}),
    "R52": ({"F08": "B"}, {"F08": "A4"}, {"O08": {"PREF+"}}),
    "R53": ({"recurrent": True}, {"F02": "foraminal", "F18.calcified": False, "recurrent": False}, {"O09": {"E"}}),
    "R54": (
        {"F02": "central", "F14.canal_pct": 41.0},
        {"F08": "B", "redflag.ces": False, "F02": "central", "F14.canal_pct": 40.0},
        {"O10": {"E"}},
    ),
    "R55": ({"F08": "A3", "redflag.ces": False}, {"F08": "A3", "redflag.ces": True}, {"O10": {"C"}}),
    "R56": ({"F02": "foraminal"}, {"F02": "central"}, {"O11": {"E", "PREF+"}}),
    "R57": ({"F02": "central"}, {"F02": "foraminal"}, {"O11": {"C"}}),
    "R58": ({"F12.grade": 2}, {"F12.grade": 1, "instability": False}, {"O04": {"RC"}, "O12": {"FLAG"}}),
    "R59": (NO_FUSION, {**NO_FUSION, "heavy_labour": True}, {"O12": {"C"}, "O13": {"C"}}),
    "R60": (
        {"F12.grade": 1, "symptomatic": True},
        {"instability": False, "F12.grade": 0, "severe_degeneration": False, "chronic_lbp": False},
        {"O12": {"E"}},
    ),
    "R61": (
        {"recurrent": True, "chronic_lbp": True},
        {"recurrent": True, "chronic_lbp": False, "instability": False},
        {"O12": {"E"}},
    ),
    "R62": (
        {"recurrent": True, "chronic_lbp": False, "instability": False},
        {"recurrent": True, "chronic_lbp": True},
        {"O12": {"RC"}, "O04": {"E"}, "O06": {"E"}, "O08": {"E"}},
    ),
    "R63": ({"osteoporosis.untreated": True}, {"osteoporosis.untreated": False}, {"O12": {"RC"}, "O13": {"RC"}}),
    "R64": (
        {"level": "L5-S1"},
        {"level": "L4-L5", "F01": "extrusion", "vessel_corridor.unfavourable": False},
        {"O13": {"RC"}},
    ),
    "R65": (
        {"smoker": True},
        {"smoker": False, "diabetes": False, "F01": "extrusion", "F07": 0},
        {"O03": {"FLAG"}, "O13": {"FLAG"}},
    ),
    "R66": ({"clinician.override": True}, {"clinician.override": False}, {"O01": {"FLAG"}}),
}


def spoken(facts: Facts, rule_id: str) -> dict[str, set[str]]:
    """Effects of one rule on each option."""
    found: dict[str, set[str]] = {}
    for assessment in evaluate(facts, load_rule_base()).assessments:
        effects = {one.effect.effect for one in assessment.spoken if one.rule.id == rule_id}
        if effects:
            found[assessment.option] = effects
    return found


def test_the_table_covers_every_rule() -> None:
    assert [rule.id for rule in load_rule_base().rules] == list(TABLE)
    assert len(TABLE) == 66


@pytest.mark.parametrize("rule_id", TABLE)
def test_rule_speaks_where_it_should(rule_id: str) -> None:
    facts, _, expected = TABLE[rule_id]
    found = spoken(facts, rule_id)
    assert {option: found.get(option) for option in expected} == expected


@pytest.mark.parametrize("rule_id", TABLE)
def test_rule_is_silent_where_it_should_be(rule_id: str) -> None:
    found = spoken(TABLE[rule_id][1], rule_id)
    assert found == {}


@pytest.mark.parametrize("rule_id", [rule_id for rule_id in TABLE if rule_id not in ("R02", "R05")])
def test_rule_does_not_fire_on_unknown_facts_and_names_them(rule_id: str) -> None:
    result = evaluate({}, load_rule_base())
    assert spoken({}, rule_id) == {}
    assert any(rule_id in rules for rules in result.missing.values())


def test_a_herniation_of_unknown_type_leaves_type_rules_open() -> None:
    facts: Facts = {"F01": OneOf(frozenset(("protrusion", "extrusion", "sequestration"))), "exam.motor": 5}
    result = evaluate(facts, load_rule_base())
    assert "R14" in result.missing["F01"]
    assert spoken({**facts, "duration_weeks": 4.0}, "R14") == {}


def test_effects_reach_exactly_the_options_of_the_rule() -> None:
    assert set(spoken(TABLE["R19"][0], "R19")) == set(INVASIVE)
    assert set(spoken(TABLE["R06"][0], "R06")) == set(SURG)
    assert set(spoken(TABLE["R09"][0], "R09")) == set(DECOMP)
    assert "O06" not in spoken(TABLE["R21"][0], "R21")


def test_sources_and_verification_are_stated() -> None:
    for rule in load_rule_base().rules:
        assert rule.text.zh
        assert rule.text.en
        assert rule.verification in ("sourced", "unverified", "policy")
        assert all(source.startswith("S-") for source in rule.sources)
        assert rule.sources or rule.verification != "sourced"


def test_options_have_names_and_figures_with_sources() -> None:
    base: RuleBase = load_rule_base()
    assert tuple(base.options) == ALL
    for option in base.options.values():
        for figure in option.figures:
            assert figure.source.startswith("S-")
            assert figure.setting.zh


@pytest.mark.test_data
def test_wording_is_that_of_the_clinical_model(test_data: Path) -> None:
    path = test_data.parent / "rules.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    stated = {rule.id: rule.stated for rule in load_rule_base().rules}
    assert stated.keys() == rows.keys()
    for rule_id, row in rows.items():
        assert stated[rule_id] == {key: row[key] for key in ("options", "condition", "verdict")}
        text = row["source_or_text"]
        rule = next(rule for rule in load_rule_base().rules if rule.id == rule_id)
        assert ("UNVERIFIED" not in text) or rule.verification == "unverified"
        assert ("POLICY" not in text) or rule.verification == "policy"
        assert all(source in text for source in rule.sources if source != "S-NASS")
