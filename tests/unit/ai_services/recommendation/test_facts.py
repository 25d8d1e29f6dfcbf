"""Facts from Observations and answers: amended findings count, unanswered stays unknown, the level says how it came."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

from ai_services.prediction import Finding, Numbering
from ai_services.recommendation.conditions import OneOf
from ai_services.recommendation.facts import FactSet, collect_facts
from ai_services.recommendation.rule_base import load_rule_base
from ai_services.results.observation import build_numbering, build_observation
from terminology import systems
from tests.builders.prediction import findings, prediction, run_context

TODAY = date(2026, 11, 22)
ADULT = {"resourceType": "Patient", "birthDate": "1980-02-29"}


def observations(*items: Finding, numbering: Numbering | None = None) -> list[dict[str, Any]]:
    made, context = prediction(items=items or findings()), run_context()
    built = [build_observation(item, made, context, "Device/d") for item in made.findings]
    return [*built, build_numbering(numbering or made.numbering, made, context, "Device/d")]


def response(authored: str, **answers: object) -> dict[str, Any]:
    def answer(value: object) -> dict[str, Any]:
        kinds = {bool: "valueBoolean", int: "valueInteger", float: "valueDecimal"}
        return {kinds[type(value)]: value} if type(value) in kinds else {"valueCoding": {"code": value}}

    return {
        "resourceType": "QuestionnaireResponse",
        "status": "completed",
        "authored": authored,
        "questionnaire": systems.INTAKE_QUESTIONNAIRE,
        "item": [{"linkId": name.replace("__", "."), "answer": [answer(value)]} for name, value in answers.items()],
    }


def facts(seen: list[dict[str, Any]], *responses: dict[str, Any], patient: dict[str, Any] = ADULT) -> FactSet:
    return collect_facts(seen, responses, patient, load_rule_base(), TODAY)


def test_level_is_the_one_with_the_worst_morphology_and_says_so() -> None:
    found = facts(observations())
    assert found.index_level == "L4-L5"
    assert "形态最重" in found.level_choice.zh
    assert found.facts["F06"] == 4
    assert found.facts["F13"] == 0.27
    assert found.facts["mri.quality"] == "ok"


def test_a_level_that_a_person_gave_wins() -> None:
    found = facts(observations(), response("2026-11-20", index_level="L5-S1"))
    assert found.index_level == "L5-S1"
    assert found.facts["F01"] == "bulge"
    assert "医生指定" in found.level_choice.zh


def test_no_level_when_every_disc_is_normal() -> None:
    found = facts(observations(Finding("F01", "L4-L5", "normal"), Finding("F01", "L5-S1", "normal")))
    assert found.index_level is None
    assert "level" not in found.facts
    assert found.facts["all_levels.no_herniation"] is True


def test_a_level_without_findings_has_no_image() -> None:
    found = facts(observations(), response("2026-11-20", index_level="L1-L2"))
    assert found.facts["mri.quality"] == "missing"


def test_herniation_without_type_is_partly_known() -> None:
    found = facts(observations())
    assert found.facts["F01"] == OneOf(frozenset(("protrusion", "extrusion", "sequestration")))
    assert found.facts["all_levels.no_herniation"] is False


def test_an_amended_finding_counts_and_a_rejected_one_does_not() -> None:
    seen = observations()
    index = next(i for i, item in enumerate(seen) if item["code"]["coding"][0]["code"] == "F01" and i > 0)
    seen[index] = {
        **seen[index],
        "status": "amended",
        "valueCodeableConcept": {"coding": [{"system": systems.MORPHOLOGY, "code": "sequestration"}]},
    }
    assert facts(seen).facts["F01"] == "sequestration"
    seen[index] = {**seen[index], "status": "entered-in-error"}
    assert facts(seen).index_level == "L5-S1"


def test_absent_values_are_unknown_not_normal() -> None:
    found = facts(observations())
    assert "F08" not in found.facts
    assert "all_levels.F08_max" not in found.facts


def test_unanswered_is_unknown_and_only_the_newest_answers_count() -> None:
    old = response("2026-05-01", redflag__ces=False, exam__motor=5)
    new = response("2026-11-21", exam__motor=3)
    found = facts(observations(), old, new)
    assert found.facts["exam.motor"] == 3
    assert "redflag.ces" not in found.facts


def test_an_unfinished_or_foreign_response_does_not_count() -> None:
    unfinished = {**response("2026-11-21", redflag__ces=False), "status": "in-progress"}
    foreign = {**response("2026-11-21", redflag__ces=False), "questionnaire": "https://example.org/other"}
    assert "redflag.ces" not in facts(observations(), unfinished, foreign).facts


def test_an_answer_out_of_range_is_unknown_and_said() -> None:
    found = facts(observations(), response("2026-11-21", exam__motor=9, side="upwards"))
    assert "exam.motor" not in found.facts
    assert "side" not in found.facts
    assert len(found.notes) == 2


def test_nested_items_are_read() -> None:
    answers = response("2026-11-21", redflag__ces=True)
    nested = {**answers, "item": [{"linkId": "group", "item": answers["item"]}]}
    assert facts(observations(), nested).facts["redflag.ces"] is True


def test_dominant_pain_is_derived() -> None:
    found = facts(observations(), response("2026-11-21", pain__dominant="leg", pain__leg_nrs=7))
    assert found.facts["leg_dominant"] is True
    assert found.facts["back_dominant"] is False
    assert found.facts["symptomatic"] is True


def test_unsure_numbering_and_low_resolution_reach_the_rules() -> None:
    seen = observations(
        Finding("F01", "L4-L5", "bulge", quality="low_resolution"), numbering=Numbering("sacrum-only", False, "6 discs")
    )
    found = facts(seen)
    assert found.facts["numbering.confident"] is False
    assert found.facts["mri.quality"] == "low_resolution"


def test_a_missing_other_sequence_does_not_spoil_the_level() -> None:
    absent = Finding(
        "F07",
        "L4-L5",
        absent_reason="not-performed",
        absent_text_zh="缺",
        absent_text_en="no",
        quality="missing_sequence",
    )
    assert facts(observations(Finding("F01", "L4-L5", "bulge"), absent)).facts["mri.quality"] == "ok"


def test_children_are_outside_the_intended_use() -> None:
    assert facts(observations()).notes == ()
    assert "18" in facts(observations(), patient={"birthDate": "2012-01-01"}).notes[0].en


def test_without_an_index_level_the_rules_hold() -> None:
    normal = [item for item in findings() if item.code != "F01"]
    found = facts(observations(*normal))
    assert found.index_level is None
    assert found.facts["mri.quality"] == "missing"


def test_the_newest_answers_are_newest_by_the_clock_not_by_their_text() -> None:
    older = response("2026-11-20T09:00:00+08:00", redflag__ces=False)
    newer = response("2026-11-20T02:00:00.000Z", redflag__ces=True)
    assert facts(observations(), newer, older).facts["redflag.ces"] is True


def test_old_answers_to_the_red_flags_are_asked_again() -> None:
    found = facts(observations(), response("2026-10-01", redflag__ces=False, diabetes=True))
    assert "redflag.ces" not in found.facts
    assert found.facts["diabetes"] is True
    assert any("重新询问" in note.zh for note in found.notes)


def test_an_unsure_morphology_does_not_choose_the_level() -> None:
    unsure = [replace(item, confidence=0.07) if item.code == "F01" and item.value else item for item in findings()]
    found = facts(observations(*unsure))
    assert found.index_level is None
    assert "7%" in found.level_choice.zh
    signed = [{**item, "status": "final"} for item in observations(*unsure)]
    assert facts(signed).index_level == "L4-L5"
