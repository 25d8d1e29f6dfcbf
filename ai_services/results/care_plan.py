"""Recommendation → RequestGroup, one CarePlan an option, GuidanceResponse: proposals, nothing chosen (stage 5).

https://hl7.org/fhir/R4/requestgroup.html; CarePlan draft/option (clinical model §6.1, §6.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ai_services.recommendation.evaluate import OptionAssessment, Recommendation, Spoken
from ai_services.recommendation.facts import FactSet
from ai_services.recommendation.rule_base import Figure, RuleBase
from ai_services.results.context import Resource, ai_meta
from foramen.kernel.identifiers import derived_uuid
from terminology import systems
from terminology.codes import OPTIONS

_VERDICT_TEXT = {
    "eligible": ("适合", "eligible"),
    "relatively-contraindicated": ("相对禁忌", "relatively contraindicated"),
    "contraindicated": ("禁忌", "contraindicated"),
    "not-assessable": ("资料不足，无法评估", "not assessable yet"),
}


@dataclass(frozen=True, slots=True)
class OptionContext:
    """What the option resources of one evaluation share.

    Parameters
    ----------
    key : of the evaluation: the same report, answers and rules give the same key, and so the same ids
    patient, report, device : references
    instant : FHIR instant of the evaluation
    synthetic : whether the study is labelled SYNTHETIC
    """

    key: str
    patient: str
    report: str
    device: str
    instant: str
    synthetic: bool

    def urn(self, kind: str) -> str:
        """`urn:uuid:` of one resource, the same on every replay."""
        return f"urn:uuid:{derived_uuid(self.key, kind)}"

    def identifier(self, kind: str) -> dict[str, str]:
        """Business identifier for conditional creation."""
        return {"system": systems.IDENTIFIER_RESULT, "value": self.urn(kind)}

    @property
    def meta(self) -> dict[str, Any]:
        """Tags of AI results."""
        return ai_meta(synthetic=self.synthetic)


def build_care_plan(assessment: OptionAssessment, facts: FactSet, base: RuleBase, context: OptionContext) -> Resource:
    """Build the CarePlan of one option: what it is, what speaks for and against it, never a choice."""
    option, code = base.options[assessment.option], OPTIONS[assessment.option]
    verdict_zh, verdict_en = _VERDICT_TEXT[assessment.verdict]
    level = f"{facts.index_level} " if facts.index_level else ""
    plan: Resource = {
        "resourceType": "CarePlan",
        "meta": context.meta,
        "identifier": [context.identifier(assessment.option)],
        "status": "draft",
        "intent": "option",
        "category": [code.concept()],
        "title": f"{level}{option.name.zh}",
        "description": (
            f"{option.principle.zh}。麻醉：{option.anaesthesia.zh}。评估：{verdict_zh}。\n"
            f"{option.name.en}. {option.principle.en}. Anaesthesia: {option.anaesthesia.en}. Verdict: {verdict_en}."
        ),
        "subject": {"reference": context.patient},
        "created": context.instant,
        "author": {"reference": context.device},
        "supportingInfo": [{"reference": context.report}],
        "extension": [
            {"url": systems.EXTENSION_VERDICT, "valueCode": assessment.verdict},
            *(_rule_extension(spoken) for spoken in assessment.spoken),
            *_open_rules(assessment, base),
            *_missing(assessment, base),
            *(_figure_extension(figure) for figure in option.figures),
        ],
    }
    if not assessment.available:
        plan["note"] = [{"text": "本院或本术者不能开展 not available here"}]
    return plan


def build_request_group(
    recommendation: Recommendation, facts: FactSet, base: RuleBase, context: OptionContext, plans: Sequence[str]
) -> Resource:
    """Build the RequestGroup that lists the options in order.

    Parameters
    ----------
    recommendation : its assessments give the order; a `prefix` shows rank and ties, and is absent under a HOLD
    facts : for the index level and how it was chosen
    base : rule base
    context : of the evaluation
    plans : reference of the CarePlan of each assessment, in the same order
    """
    holds = [
        {"url": systems.EXTENSION_HOLD, "valueString": f"{hold.rule.id}: {hold.rule.text.zh} {hold.rule.text.en}"}
        for hold in recommendation.holds
    ]
    group: Resource = {
        "resourceType": "RequestGroup",
        "meta": context.meta,
        "extension": [*holds, *_missing_clinical(recommendation, base)],
        "identifier": [context.identifier("options")],
        "instantiatesCanonical": [f"{systems.RULE_LIBRARY}|{recommendation.rules_version}"],
        "status": "draft",
        "intent": "proposal",
        "priority": "urgent" if recommendation.urgent else "routine",
        "subject": {"reference": context.patient},
        "authoredOn": context.instant,
        "author": {"reference": context.device},
        "reasonReference": [{"reference": context.report}],
        "note": [{"text": text} for text in _notes(recommendation, facts)],
        "action": [
            _action(assessment, base, plan) for assessment, plan in zip(recommendation.assessments, plans, strict=True)
        ],
    }
    if not group["extension"]:
        del group["extension"]
    return group


def build_guidance_response(
    recommendation: Recommendation, base: RuleBase, context: OptionContext, request_group: str
) -> Resource:
    """Build the GuidanceResponse: which rules, in which version, answered, and what they still need."""
    missing = [
        {
            "type": "Observation" if base.facts[name].kind == "imaging" else "QuestionnaireResponse",
            "mustSupport": [name],
        }
        for name in recommendation.missing
    ]
    response: Resource = {
        "resourceType": "GuidanceResponse",
        "meta": context.meta,
        "identifier": [context.identifier("guidance")],
        "moduleCanonical": f"{systems.RULE_LIBRARY}|{recommendation.rules_version}",
        "status": "data-required" if missing else "success",
        "subject": {"reference": context.patient},
        "occurrenceDateTime": context.instant,
        "performer": {"reference": context.device},
        "reasonReference": [{"reference": context.report}],
        "note": [{"text": _summary(recommendation)}],
        "result": {"reference": request_group},
    }
    if missing:
        response["dataRequirement"] = missing
    return response


def _rule_extension(spoken: Spoken) -> dict[str, Any]:
    rule = spoken.rule
    parts = [
        {"url": "rule", "valueCode": rule.id},
        {"url": "effect", "valueCode": spoken.effect.effect},
        {"url": "stance", "valueCode": spoken.stance},
        {"url": "text", "valueString": f"{rule.text.zh} {rule.text.en}"},
        {"url": "verification", "valueCode": rule.verification},
    ]
    parts += [{"url": "source", "valueString": source} for source in rule.sources]
    return {"url": systems.EXTENSION_RULES, "extension": parts}


def _open_rules(assessment: OptionAssessment, base: RuleBase) -> list[dict[str, Any]]:
    """List the rules that could still speak against the option once a fact is known: silence is no approval."""
    rendered = []
    for opened in assessment.open_rules:
        effects = [
            effect.effect
            for effect in opened.rule.effects
            if assessment.option in effect.options and effect.effect in ("C", "RC", "HOLD") and not effect.about_path
        ]
        if not effects:
            continue
        parts = [
            {"url": "rule", "valueCode": opened.rule.id},
            {"url": "effect", "valueCode": effects[0]},
            {"url": "stance", "valueCode": "open"},
            {"url": "text", "valueString": f"{opened.rule.text.zh} {opened.rule.text.en}"},
            {"url": "verification", "valueCode": opened.rule.verification},
        ]
        for name in sorted(opened.missing):
            label = base.facts[name].label
            parts.append({"url": "missing", "valueString": f"{label.zh} {label.en}"})
        parts += [{"url": "source", "valueString": source} for source in opened.rule.sources]
        rendered.append({"url": systems.EXTENSION_RULES, "extension": parts})
    return rendered


def _figure_extension(figure: Figure) -> dict[str, Any]:
    number = f"n={figure.n}" if figure.n is not None else "n 未注明 not stated"
    return {
        "url": systems.EXTENSION_FIGURE,
        "extension": [
            {"url": "text", "valueString": f"{figure.text.zh}。{figure.text.en}."},
            {"url": "n", "valueString": number},
            {"url": "setting", "valueString": f"{figure.setting.zh} {figure.setting.en}"},
            {"url": "source", "valueString": figure.source},
        ],
    }


def _missing(assessment: OptionAssessment, base: RuleBase) -> list[dict[str, Any]]:
    names = sorted({name for opened in assessment.open_rules for name in opened.missing})
    return [
        {"url": systems.EXTENSION_MISSING_INPUT, "valueString": name}
        for name in names
        if base.facts[name].kind == "clinical"
    ]


def _missing_clinical(recommendation: Recommendation, base: RuleBase) -> list[dict[str, Any]]:
    return [
        {"url": systems.EXTENSION_MISSING_INPUT, "valueString": name}
        for name in recommendation.missing
        if base.facts[name].kind == "clinical"
    ]


def _notes(recommendation: Recommendation, facts: FactSet) -> list[str]:
    texts = [f"{facts.level_choice.zh} {facts.level_choice.en}"]
    texts += [f"{note.zh} {note.en}" for note in facts.notes]
    if recommendation.blocked_reason is not None:
        texts.append(f"{recommendation.blocked_reason.zh} {recommendation.blocked_reason.en}")
    if recommendation.if_corrected is not None:
        left = "、".join(
            option for option, verdict in recommendation.if_corrected.items() if verdict != "contraindicated"
        )
        texts.append(f"假设纠正后可考虑（仅为假设）：{left}。 Hypothetical, if corrected: {left.replace('、', ', ')}.")
    if recommendation.plan_export_blocked:
        texts.append("R18：确认节段之前禁止导出手术规划。 R18: plan export is blocked until the level is confirmed.")
    texts.append(
        f"排序规则 {recommendation.ranking_version}；未使用预后模型；不预选任何方案，由医生选择。 "
        f"Order by {recommendation.ranking_version}, no prognosis model; nothing is preselected, the surgeon chooses."
    )
    return texts


def _action(assessment: OptionAssessment, base: RuleBase, plan: str) -> dict[str, Any]:
    verdict_zh, verdict_en = _VERDICT_TEXT[assessment.verdict]
    action: dict[str, Any] = {
        "title": base.options[assessment.option].name.zh,
        "textEquivalent": f"{assessment.option} {verdict_zh} {verdict_en}",
        "code": [OPTIONS[assessment.option].concept()],
        "resource": {"reference": plan},
    }
    if assessment.rank is not None:
        action["prefix"] = f"{assessment.rank}{'=' if assessment.tied else ''}"
    return action


def _summary(recommendation: Recommendation) -> str:
    """One line a machine or a person can compare, for example ``O06:eligible(R34) O07:…``."""
    parts = []
    for item in sorted(recommendation.assessments, key=lambda item: item.option):
        rules = ",".join(dict.fromkeys(one.rule.id for one in item.spoken))
        parts.append(f"{item.option}:{item.verdict}({rules})")
    return " ".join(parts)
