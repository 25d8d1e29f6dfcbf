"""Verdicts, holds, order and blocked reasons; as properties over random patients and as single cases."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ai_services.recommendation.conditions import FactValue, OneOf
from ai_services.recommendation.evaluate import evaluate
from ai_services.recommendation.rule_base import FactDefinition, load_rule_base

BASE = load_rule_base()
CLEAR: dict[str, FactValue] = {
    "redflag.ces": False,
    "redflag.other": "none",
    "exam.motor": 4,
    "side": "left",
    "concord": True,
    "mri.quality": "ok",
    "level": "L4-L5",
    "F01": "extrusion",
    "F02": "subarticular",
    "duration_weeks": 10.0,
    "conservative.weeks": 8.0,
    "conservative.failed": True,
    "leg_dominant": True,
    "back_dominant": False,
    "pain.leg_nrs": 7,
}


def values_of(definition: FactDefinition) -> st.SearchStrategy[Any]:
    match definition.type:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(int(definition.minimum or 0), int(definition.maximum or 40))
        case "decimal":
            return st.floats(definition.minimum or 0, definition.maximum or 60, allow_nan=False)
        case "codes":
            return st.just(frozenset(BASE.options))
    return st.sampled_from(sorted(definition.values))


def patients() -> st.SearchStrategy[dict[str, FactValue]]:
    names = {name: values_of(item) for name, item in BASE.facts.items() if name not in ("option",)}
    herniated = st.just(OneOf(frozenset(("protrusion", "extrusion", "sequestration"))))
    names["F01"] = st.one_of(names["F01"], herniated)
    return st.fixed_dictionaries({}, optional=names)


@settings(max_examples=400, deadline=None)
@given(patients())
def test_three_options_are_left_or_the_reason_is_given(facts: dict[str, FactValue]) -> None:
    result = evaluate(facts, BASE)
    usable = [
        item
        for item in result.assessments
        if item.verdict in ("eligible", "relatively-contraindicated") and item.available
    ]
    assert (len(usable) >= 3) == (result.blocked_reason is None)
    if result.blocked_reason is not None:
        assert "R" in result.blocked_reason.zh or "缺少资料" in result.blocked_reason.zh
        assert len(result.blocked_reason.en) > 40


@settings(max_examples=400, deadline=None)
@given(patients())
def test_verdict_is_the_worst_that_was_spoken(facts: dict[str, FactValue]) -> None:
    for item in evaluate(facts, BASE).assessments:
        effects = {one.effect.effect for one in item.spoken if not one.effect.about_path}
        expected = {"C": "contraindicated", "RC": "relatively-contraindicated", "E": "eligible"}
        worst = next((expected[effect] for effect in ("C", "RC", "E") if effect in effects), None)
        assert item.verdict == worst or (worst is None and item.verdict in ("eligible", "not-assessable"))


@settings(max_examples=400, deadline=None)
@given(patients())
def test_a_hold_stops_every_ranking_and_a_contraindicated_option_has_no_rank(facts: dict[str, FactValue]) -> None:
    result = evaluate(facts, BASE)
    ranked = [item for item in result.assessments if item.rank is not None]
    if result.holds:
        assert not ranked
    assert all(item.verdict in ("eligible", "relatively-contraindicated") for item in ranked)
    ranks = defaultdict(list)
    for item in ranked:
        ranks[item.rank].append(item)
    for group in ranks.values():
        assert len({item.score for item in group}) == 1
        assert all(item.tied == (len(group) > 1) for item in group)
    assert [item.score for item in ranked] == sorted((item.score for item in ranked), reverse=True)


@settings(max_examples=200, deadline=None)
@given(patients())
def test_learning_a_missing_fact_never_silences_a_rule_that_spoke(facts: dict[str, FactValue]) -> None:
    """More knowledge may add voices, but R02 and R05, which speak about ignorance, are the only ones to fall silent."""
    before = {(item.option, one.rule.id) for item in evaluate(facts, BASE).assessments for one in item.spoken}
    known = {**dict.fromkeys(("smoker", "diabetes", "heavy_labour"), False), **facts}
    after = {(item.option, one.rule.id) for item in evaluate(known, BASE).assessments for one in item.spoken}
    assert before <= after


@settings(max_examples=200, deadline=None)
@given(patients())
def test_same_facts_same_answer(facts: dict[str, FactValue]) -> None:
    assert evaluate(facts, BASE) == evaluate(dict(reversed(facts.items())), BASE)


def test_nothing_known_holds_and_contraindicates_nothing() -> None:
    result = evaluate({}, BASE)
    assert {hold.rule.id for hold in result.holds} == {"R02", "R05"}
    assert result.not_contraindicated == 13
    assert all(item.verdict == "not-assessable" for item in result.assessments)
    assert "redflag.ces" in result.missing


def test_cauda_equina_is_urgent_and_conservative_is_contraindicated() -> None:
    result = evaluate({**CLEAR, "redflag.ces": True}, BASE)
    verdicts = {item.option: item.verdict for item in result.assessments}
    assert result.urgent
    assert verdicts["O01"] == "contraindicated"
    assert verdicts["O04"] == "eligible"


def test_clear_case_is_ranked_with_ties_shown() -> None:
    result = evaluate(CLEAR, BASE)
    first = [item.option for item in result.assessments if item.rank == 1]
    assert not result.holds
    assert "O06" in first
    assert len(first) > 1
    assert all(item.tied for item in result.assessments if item.rank == 1)
    assert next(item.verdict for item in result.assessments if item.option == "O11") == "contraindicated"


def test_correctable_state_blocks_and_previews_what_correction_would_open() -> None:
    result = evaluate({**CLEAR, "coagulopathy": True}, BASE)
    assert result.blocked_reason is not None
    assert "R19" in result.blocked_reason.en
    assert result.if_corrected is not None
    assert result.if_corrected["O06"] == "eligible"
    assert result.if_corrected["O11"] == "contraindicated"


def test_unsure_numbering_blocks_plan_export_but_not_the_options() -> None:
    result = evaluate({**CLEAR, "numbering.confident": False}, BASE)
    assert result.plan_export_blocked
    assert not result.holds
    assert not evaluate({**CLEAR, "numbering.confident": True}, BASE).plan_export_blocked


def test_a_path_verdict_does_not_condemn_the_option() -> None:
    result = evaluate({**CLEAR, "plan.hits_hard_structure": True}, BASE)
    assert next(item.verdict for item in result.assessments if item.option == "O06") == "eligible"


def test_an_option_that_is_not_offered_here_is_not_ranked() -> None:
    available = frozenset(BASE.options) - {"O06"}
    result = evaluate({**CLEAR, "site.available_options": available, "surgeon.privileges": available}, BASE)
    unavailable = next(item for item in result.assessments if item.option == "O06")
    assert not unavailable.available
    assert unavailable.rank is None
