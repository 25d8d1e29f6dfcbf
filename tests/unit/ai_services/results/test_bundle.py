"""One transaction: valid FHIR, nothing missing, nothing verified, the same on every replay."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import orjson
import pytest
from fhir.resources.R4B import get_fhir_model_class
from fhirkit import validate

from ai_services.prediction import Finding, ModelIdentity, Numbering
from ai_services.recommendation.rule_base import load_rule_base
from ai_services.results.bundle import ClinicalInputs, build_options, build_results
from ai_services.results.care_plan import OptionContext
from terminology import systems
from tests.builders.prediction import prediction, run_context

INPUTS = ClinicalInputs({"resourceType": "Patient", "id": "p1", "birthDate": "1970-01-01"}, (), date(2026, 11, 22))


def bundle(**changes: Any) -> dict[str, Any]:
    return build_results(changes.pop("made", prediction()), run_context(**changes), INPUTS, load_rule_base())


def of_type(made: dict[str, Any], resource_type: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in made["entry"] if entry["resource"]["resourceType"] == resource_type]


def test_every_resource_is_valid_for_two_independent_validators() -> None:
    for entry in bundle()["entry"]:
        resource = entry["resource"]
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
        assert validate(orjson.dumps(resource)) == []


def test_everything_is_there() -> None:
    made = bundle()
    assert len(of_type(made, "Device")) == 1
    assert len(of_type(made, "Observation")) == len(prediction().findings) + 1
    assert len(of_type(made, "DiagnosticReport")) == 1
    assert len(of_type(made, "CarePlan")) == 13
    assert len(of_type(made, "RequestGroup")) == 1
    assert len(of_type(made, "GuidanceResponse")) == 1
    assert len(of_type(made, "Provenance")) == 1


def test_nothing_is_verified_and_everything_is_marked() -> None:
    made = bundle()
    assert {item["status"] for item in of_type(made, "Observation")} == {"preliminary"}
    assert of_type(made, "DiagnosticReport")[0]["status"] == "partial"
    assert {(item["status"], item["intent"]) for item in of_type(made, "CarePlan")} == {("draft", "option")}
    for entry in made["entry"]:
        if entry["resource"]["resourceType"] != "Device":
            codes = {tag["code"] for tag in entry["resource"]["meta"]["tag"]}
            assert {"AI-GENERATED", "SYNTHETIC"} <= codes


def test_a_real_study_is_not_marked_synthetic() -> None:
    assert "SYNTHETIC" not in orjson.dumps(bundle(synthetic=False)).decode()


def test_every_entry_is_a_conditional_create_and_every_reference_resolves() -> None:
    made = bundle()
    known = {entry["fullUrl"] for entry in made["entry"]}
    assert len(known) == len(made["entry"])
    for entry in made["entry"]:
        assert entry["request"]["method"] == "POST"
        assert "ifNoneExist" in entry["request"]
    for reference in references(made["entry"]):
        assert reference in known or not reference.startswith("urn:")


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["reference"]] if isinstance(value.get("reference"), str) else []
        return own + [item for child in value.values() for item in references(child)]
    return [item for child in value for item in references(child)] if isinstance(value, list) else []


def test_a_replay_is_byte_for_byte_the_same() -> None:
    assert orjson.dumps(bundle()) == orjson.dumps(bundle())


@pytest.mark.parametrize("change", [{"input_hash": "ffff"}, {"pipeline_version": "lumbar-segmentation 0.2.0"}])
def test_other_input_or_another_model_is_another_result(change: dict[str, str]) -> None:
    first = {entry["fullUrl"] for entry in bundle()["entry"]}
    second = {entry["fullUrl"] for entry in bundle(**change)["entry"]}
    devices = {entry["fullUrl"] for entry in bundle()["entry"] if entry["resource"]["resourceType"] == "Device"}
    assert first & second == devices


def test_what_could_not_be_computed_is_absent_and_never_normal() -> None:
    absent = [item for item in of_type(bundle(), "Observation") if item["code"]["coding"][0]["code"] in ("F08", "F02")]
    assert len(absent) == 2
    for item in absent:
        assert not any(key.startswith("value") for key in item)
        assert item["dataAbsentReason"]["coding"] == [{"system": systems.DATA_ABSENT_REASON, "code": "not-performed"}]
        assert "轴位" in item["dataAbsentReason"]["text"]


def test_a_number_carries_unit_uncertainty_model_time_and_source() -> None:
    canal = next(item for item in of_type(bundle(), "Observation") if item["code"]["coding"][0]["code"] == "canal-ap")
    assert canal["valueQuantity"] == {"value": 11.2, "unit": "mm", "system": systems.UCUM, "code": "mm"}
    uncertainty = canal["component"][0]
    assert uncertainty["code"]["coding"][0]["code"] == "uncertainty"
    assert uncertainty["valueQuantity"]["code"] == "mm"
    assert canal["device"]["reference"].startswith("urn:uuid:")
    assert canal["effectiveDateTime"] == "2026-11-22T08:00:01.250Z"
    assert canal["extension"][0]["valueUri"] == f"urn:oid:{prediction().series_instance_uid}"


def test_options_without_clinical_input_are_held_and_ask_for_it() -> None:
    group = of_type(bundle(), "RequestGroup")[0]
    holds = [item["valueString"] for item in group["extension"] if item["url"] == systems.EXTENSION_HOLD]
    missing = [item["valueString"] for item in group["extension"] if item["url"] == systems.EXTENSION_MISSING_INPUT]
    assert [hold[:4] for hold in holds] == ["R02:", "R05:"]
    assert {"redflag.ces", "exam.motor"} <= set(missing)
    assert not any("prefix" in action for action in group["action"])
    assert len(group["action"]) == 13


def test_rules_that_spoke_stand_on_the_card() -> None:
    plans = of_type(bundle(), "CarePlan")
    surgery = next(plan for plan in plans if plan["category"][0]["coding"][0]["code"] == "O07")
    rules = [item for item in surgery["extension"] if item["url"] == systems.EXTENSION_RULES]
    by_rule = {part["valueCode"]: rule for rule in rules for part in rule["extension"] if part["url"] == "rule"}
    above = {part["url"]: part for part in by_rule["R47"]["extension"]}
    assert above["stance"]["valueCode"] in ("against", "note")
    assert above["source"]["valueString"] == "S-PEID45"
    assert above["verification"]["valueCode"] == "sourced"


def test_how_often_such_a_count_is_right_is_told() -> None:
    made = bundle(made=prediction(numbering=Numbering("sacrum-only", True, probability=0.9)))
    numbering = next(item for item in of_type(made, "Observation") if item["code"]["coding"][0]["code"] == "numbering")
    told = {part["code"]["coding"][0]["code"]: part for part in numbering["component"]}
    assert told["confidence"]["valueQuantity"]["value"] == 0.9
    assert numbering["valueCodeableConcept"]["text"] == "可靠 reliable"


def test_unsure_numbering_is_said_everywhere() -> None:
    made = bundle(made=prediction(numbering=Numbering("sacrum-only", False, "6 discs found")))
    numbering = next(item for item in of_type(made, "Observation") if item["code"]["coding"][0]["code"] == "numbering")
    assert numbering["component"][0]["valueBoolean"] is False
    assert "计数不可靠" in of_type(made, "DiagnosticReport")[0]["conclusion"]
    assert "R18" in orjson.dumps(of_type(made, "RequestGroup")[0]["note"]).decode()


def test_conclusion_is_chinese_first_in_order_with_model_and_limits() -> None:
    text = of_type(bundle(), "DiagnosticReport")[0]["conclusion"]
    chinese, english = text.split("\n\n")
    assert chinese.index("L4-L5") < chinese.index("L5-S1")
    for part in ("突出（未分型）", "未能评估", "由 AI 生成", "lumbar-segmentation 0.1.0", "未注册为医疗器械"):
        assert part in chinese
    for part in ("not assessable", "Generated by AI", "lumbar-segmentation 0.1.0", "not a registered medical device"):
        assert part in english


def test_options_follow_the_findings_as_they_now_are() -> None:
    context = OptionContext("k", "Patient/p1", "DiagnosticReport/r1", "Device/d1", "2026-11-22T08:00:00.000Z", True)
    first = bundle()
    seen = [{**item, "id": f"o{n}"} for n, item in enumerate(of_type(first, "Observation"))]
    amended = [
        {**item, "status": "amended", "valueCodeableConcept": {"coding": [{"code": "extrusion"}]}}
        if item["code"]["coding"][0]["code"] == "F01"
        else item
        for item in seen
    ]
    made = build_options(amended, context, INPUTS, load_rule_base())
    ablation = next(plan for plan in of_type(made, "CarePlan") if plan["category"][0]["coding"][0]["code"] == "O03")
    verdict = next(item for item in ablation["extension"] if item["url"] == systems.EXTENSION_VERDICT)
    assert verdict["valueCode"] == "contraindicated"
    assert not of_type(made, "Observation")
    for entry in made["entry"]:
        get_fhir_model_class(entry["resource"]["resourceType"]).model_validate(entry["resource"])


def test_a_finding_without_any_level_stands_last() -> None:
    absent = Finding("F15", None, absent_reason="not-performed", absent_text_zh="未测量", absent_text_en="not measured")
    made = bundle(made=prediction(items=(Finding("F01", "L4-L5", "normal", confidence=0.9), absent)))
    text = of_type(made, "DiagnosticReport")[0]["conclusion"]
    assert text.index("L4-L5") < text.index("全片")


def test_a_grade_names_the_grading_model_and_a_measurement_the_one_of_the_mask() -> None:
    grading = ModelIdentity("lumbar-grading", "0.3.0", "cd" * 32)
    made = bundle(made=replace(prediction(), models=(prediction().models[0], grading)))
    names = {entry["fullUrl"]: entry["resource"].get("deviceName") for entry in made["entry"]}
    by_code = {item["code"]["coding"][0]["code"]: item["device"]["reference"] for item in of_type(made, "Observation")}
    assert names[by_code["F01"]][0]["name"] == "lumbar-grading"
    assert names[by_code["F13"]][0]["name"] == "lumbar-segmentation"
