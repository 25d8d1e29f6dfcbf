"""An option card says which rules could still speak against it: silence is no approval."""

from __future__ import annotations

from typing import Any

from ai_services.recommendation.evaluate import evaluate
from ai_services.recommendation.facts import FactSet
from ai_services.recommendation.rule_base import Text, load_rule_base
from ai_services.results.care_plan import OptionContext, build_care_plan
from terminology import systems

FACTS = {
    "redflag.ces": False,
    "conservative.weeks": 10,
    "conservative.failed": True,
    "concord": True,
    "pain.dominant": "leg",
    "leg_dominant": True,
    "all_levels.no_herniation": True,
}


def rules_of(option: str, facts: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    base = load_rule_base()
    assessment = next(item for item in evaluate(facts, base).assessments if item.option == option)
    context = OptionContext("k", "Patient/p", "DiagnosticReport/r", "Device/d", "2026-11-22T08:00:00Z", True)
    plan = build_care_plan(assessment, FactSet(facts, "L4-L5", Text("给定", "given")), base, context)
    rules: dict[str, dict[str, list[str]]] = {}
    for extension in plan["extension"]:
        if extension["url"] == systems.EXTENSION_RULES:
            parts: dict[str, list[str]] = {}
            for part in extension["extension"]:
                parts.setdefault(part["url"], []).append(part.get("valueCode") or part.get("valueString"))
            rules[parts["rule"][0]] = parts
    return rules


def test_open_contraindications_are_listed_with_what_they_wait_for() -> None:
    rules = rules_of("O06", FACTS)
    assert rules["R07"]["stance"] == ["open"]
    assert rules["R07"]["effect"] == ["C"]
    assert rules["R07"]["missing"]


def test_a_rule_that_is_decided_is_not_open() -> None:
    known = {**FACTS, "all_levels.F11_max": 0, "all_levels.F08_max": "A1"}
    assert rules_of("O06", known)["R07"]["stance"] == ["against"]
    clear = {**known, "all_levels.no_herniation": False}
    assert "R07" not in rules_of("O06", clear)
