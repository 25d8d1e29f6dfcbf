"""Observations, questionnaire and Patient → facts at the index level (stage 5).

Reads FHIR R4 as a clinician may have amended it (https://hl7.org/fhir/R4/observation.html), never the model's output,
so that a corrected finding counts. What was not said stays unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from ai_services.recommendation.conditions import Facts, FactValue, OneOf
from ai_services.recommendation.rule_base import FactDefinition, RuleBase, Text
from terminology import systems
from terminology.codes import LEVELS

Resource = Mapping[str, Any]

RED_FLAG_VALID_DAYS = 14
"""POLICY, to be confirmed: answers to the red flags older than this are asked again ("new" means < 14 days, §2.2)."""
LEAST_CONFIDENCE = 0.5
"""POLICY, to be confirmed: below this an unsigned morphology does not choose the index level."""

_USABLE = ("preliminary", "final", "amended", "corrected")
_ANSWERED = ("completed", "amended")
_HERNIATED: frozenset[bool | int | float | str] = frozenset(("protrusion", "extrusion", "sequestration"))
_WORSE = ("normal", "bulge", "protrusion", "herniation-unspecified", "extrusion", "sequestration")
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5}
# Fact → finding code and, where the fact is a part of the finding, its component (clinical model §1.4).
_SOURCES: dict[str, tuple[str, str | None]] = {
    "F01.contained": ("F01", "contained"),
    "F02": ("F02", None),
    "F03.lee_zone": ("F03", None),
    "F04": ("F04", None),
    "F05": ("F05", None),
    "F06": ("F06", None),
    "F07": ("F07", None),
    "F08": ("F08", None),
    "F11": ("F11", None),
    "F12.grade": ("F12", "grade"),
    "F13": ("F13", None),
    "F14.canal_pct": ("F14", "canal-percent"),
    "F18.calcified": ("F18", None),
    "F19": ("F19", None),
    "F20.width_mm": ("F20", "width"),
    "F21": ("F21", None),
}


@dataclass(frozen=True, slots=True)
class FactSet:
    """What is known about one patient at one level.

    Parameters
    ----------
    facts : name to value; a name that is not there is unknown
    index_level : disc level that the options are about; None where none could be chosen
    level_choice : how the level was chosen, for people
    notes : answers that could not be used, and limits of the intended use
    """

    facts: Facts
    index_level: str | None
    level_choice: Text
    notes: tuple[Text, ...] = ()


@dataclass(slots=True)
class _Answers:
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[Text] = field(default_factory=list)


def collect_facts(
    observations: Iterable[Resource],
    questionnaire_responses: Iterable[Resource],
    patient: Resource | None,
    base: RuleBase,
    today: date,
) -> FactSet:
    """Collect the facts that the rules ask about.

    Parameters
    ----------
    observations : findings of one DiagnosticReport; cancelled and entered-in-error ones are left out
    questionnaire_responses : answers to the intake questionnaire; only the newest complete one counts, because an
        old "no red flags" must not speak for today
    patient : for the limits of the intended use (age)
    """
    usable = [item for item in observations if item.get("status") in _USABLE]
    answers = _newest_answers(questionnaire_responses, today)
    level, choice = _index_level(usable, answers)
    facts: dict[str, FactValue] = {"clinician.override": False}
    for name, value in answers.values.items():
        _accept_answer(name, value, base.facts.get(name), facts, answers.notes)
    if level is None:
        facts["mri.quality"] = "missing"  # R04 holds: nothing was found at a level that anybody named
    else:
        facts["level"] = level
        facts.update(_level_facts([item for item in usable if _level_of(item) == level], base))
    facts.update(_study_facts(usable, base))
    facts.update(_derived(facts))
    return FactSet(facts, level, choice, (*answers.notes, *_intended_use(patient, today)))


def finding_code(observation: Resource) -> str | None:
    """Code of the finding (clinical model §1.4), None for another kind of Observation."""
    for coding in observation.get("code", {}).get("coding", []):
        if coding.get("system") == systems.FINDING:
            return str(coding["code"])
    return None


def _level_of(observation: Resource) -> str | None:
    for coding in observation.get("bodySite", {}).get("coding", []):
        if coding.get("system") == systems.LEVEL:
            return str(coding["code"])
    return None


def _authored(response: Resource) -> datetime:
    """When it was answered, as an instant: texts of different time zones do not sort."""
    for text in (response.get("authored"), response.get("meta", {}).get("lastUpdated")):
        try:
            moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        except ValueError:
            continue
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return datetime.min.replace(tzinfo=UTC)


def _newest_answers(responses: Iterable[Resource], today: date) -> _Answers:
    complete = [
        item
        for item in responses
        if item.get("status") in _ANSWERED
        and str(item.get("questionnaire", "")).split("|")[0] == systems.INTAKE_QUESTIONNAIRE
    ]
    answers = _Answers()
    if complete:
        newest = max(complete, key=_authored)
        _flatten(newest.get("item", []), answers.values)
        if (today - _authored(newest).date()).days > RED_FLAG_VALID_DAYS:
            _forget_red_flags(answers)
    return answers


def _forget_red_flags(answers: _Answers) -> None:
    """Old answers to the red flags count as unanswered: "no" then is not "no" now (clinical model §2.2)."""
    old = [name for name in answers.values if name.startswith("redflag.")]
    for name in old:
        del answers.values[name]
    if old:
        answers.notes.append(
            Text(
                f"红旗征的回答已超过 {RED_FLAG_VALID_DAYS} 天，按未回答处理，请重新询问。",
                f"The red flags were asked over {RED_FLAG_VALID_DAYS} days ago and count as unanswered: ask again.",
            )
        )


def _flatten(items: Iterable[Resource], into: dict[str, Any]) -> None:
    for item in items:
        for answer in item.get("answer", []):
            value = next((value for key, value in answer.items() if key.startswith("value")), None)
            if isinstance(value, Mapping):
                value = value.get("code", value.get("value"))
            if value is not None:
                into[str(item["linkId"])] = value
        _flatten(item.get("item", []), into)


def _accept_answer(
    name: str, value: Any, definition: FactDefinition | None, facts: dict[str, FactValue], notes: list[Text]
) -> None:
    if definition is None or definition.kind not in ("clinical", "history"):
        return
    accepted = _coerce(value, definition)
    if accepted is None:
        notes.append(
            Text(
                f"“{definition.label.zh}”的回答超出范围，按未回答处理。",
                f"The answer to “{definition.label.en}” is out of range and counts as unanswered.",
            )
        )
    else:
        facts[name] = accepted


def _coerce(value: Any, definition: FactDefinition) -> FactValue | None:
    """Bring a value to the type of its fact; None where it does not fit."""
    match definition.type:
        case "boolean":
            return value if isinstance(value, bool) else None
        case "integer" | "decimal":
            return _number(value, definition)
        case "code":
            code = str(value)
            return code if not definition.values or code in definition.values else None
    return None


def _number(value: Any, definition: FactDefinition) -> int | float | None:
    if isinstance(value, str):
        value = _ROMAN.get(value, int(value) if value.isdigit() else None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if definition.type == "integer" and value != int(value):
        return None
    low, high = definition.minimum, definition.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        return None
    return int(value) if definition.type == "integer" else float(value)


def _raw_value(holder: Resource) -> Any:
    """Value of an Observation or component; None where it is absent."""
    for key, value in holder.items():
        if key == "valueCodeableConcept":
            codes = [coding["code"] for coding in value.get("coding", []) if "code" in coding]
            return codes[0] if codes else None
        if key == "valueQuantity":
            return value.get("value")
        if key.startswith("value"):
            return value
    return None


def component_value(observation: Resource, code: str) -> Any:
    """Value of the component with this code, None where there is none."""
    for component in observation.get("component", []):
        if any(coding.get("code") == code for coding in component.get("code", {}).get("coding", [])):
            return _raw_value(component)
    return None


def _morphology(observation: Resource | None) -> FactValue | None:
    value = None if observation is None else _raw_value(observation)
    if value == "herniation-unspecified":
        return OneOf(_HERNIATED)
    return str(value) if value in _WORSE else None


def _of_code(observations: Iterable[Resource], code: str) -> Resource | None:
    return next((item for item in observations if finding_code(item) == code), None)


def _level_facts(at_level: Sequence[Resource], base: RuleBase) -> dict[str, FactValue]:
    facts: dict[str, FactValue] = {"mri.quality": _quality(at_level)}
    morphology = _morphology(_of_code(at_level, "F01"))
    if morphology is not None:
        facts["F01"] = morphology
    for name, (code, component) in _SOURCES.items():
        observation = _of_code(at_level, code)
        if observation is None:
            continue
        raw = _raw_value(observation) if component is None else component_value(observation, component)
        if name == "F02" and isinstance(raw, str):
            raw = {"paracentral": "central"}.get(raw.split("-")[0], raw.split("-")[0])
        value = None if raw is None else _coerce(raw, base.facts[name])
        if value is not None:
            facts[name] = value
    return facts


def _quality(at_level: Sequence[Resource]) -> str:
    """Quality of the images of a level. A missing other sequence makes single findings absent, not the level poor."""
    seen = [item for item in at_level if _raw_value(item) is not None]
    if not seen:
        return "missing"
    low = any(component_value(item, "quality") == "low_resolution" for item in seen)
    return "low_resolution" if low else "ok"


def _study_facts(observations: Sequence[Resource], base: RuleBase) -> dict[str, FactValue]:
    facts: dict[str, FactValue] = {}
    numbering = _of_code(observations, "numbering")
    confident = None if numbering is None else component_value(numbering, "numbering-confident")
    if isinstance(confident, bool):
        facts["numbering.confident"] = confident
    morphologies = [_morphology(item) for item in observations if finding_code(item) == "F01"]
    if any(value is not None and value not in ("normal", "bulge") for value in morphologies):
        facts["all_levels.no_herniation"] = False
    elif morphologies and None not in morphologies:
        facts["all_levels.no_herniation"] = True
    for code in ("F08", "F11"):
        values = [_coerce_or_none(item, base.facts[code]) for item in observations if finding_code(item) == code]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            facts[f"all_levels.{code}_max"] = max(known)
    return facts


def _coerce_or_none(observation: Resource, definition: FactDefinition) -> Any:
    raw = _raw_value(observation)
    return None if raw is None else _coerce(raw, definition)


def _derived(facts: Mapping[str, FactValue]) -> dict[str, FactValue]:
    derived: dict[str, FactValue] = {}
    if "pain.dominant" in facts:
        derived["leg_dominant"] = facts["pain.dominant"] == "leg"
        derived["back_dominant"] = facts["pain.dominant"] == "back"
    pains = [facts[name] for name in ("pain.leg_nrs", "pain.back_nrs") if name in facts]
    if any(isinstance(pain, int) and pain > 0 for pain in pains):
        derived["symptomatic"] = True
    elif len(pains) == 2:
        derived["symptomatic"] = False
    grade, height = facts.get("F06"), facts.get("F13")
    # POLICY: "severe" = Pfirrmann V (collapsed) or the height band < 0.20; clearly not severe = I–III with >= 0.30.
    if grade == 5 or (isinstance(height, float) and height < 0.20):
        derived["severe_degeneration"] = True
    elif isinstance(grade, int) and grade <= 3 and isinstance(height, float) and height >= 0.30:
        derived["severe_degeneration"] = False
    return derived


def _index_level(observations: Sequence[Resource], answers: _Answers) -> tuple[str | None, Text]:
    given = answers.values.get("index_level")
    if given in LEVELS:
        return str(given), Text(f"责任节段 {given} 由医生指定。", f"Index level {given} was given by the clinician.")
    candidates = []
    for item in observations:
        level, value = _level_of(item), _raw_value(item)
        if finding_code(item) == "F01" and level in LEVELS and value in _WORSE[1:]:
            grade = _raw_value(_of_code((o for o in observations if _level_of(o) == level), "F06") or {})
            pfirrmann = int(grade) if str(grade).isdigit() else 0
            candidates.append((_WORSE.index(str(value)), pfirrmann, LEVELS.index(str(level))))
    if not candidates:
        return None, Text(
            "未能确定责任节段：没有膨出或突出的节段，也未由医生指定。",
            "No index level: no level shows a bulge or herniation, and the clinician gave none.",
        )
    worst = max(candidates)
    level = LEVELS[worst[2]]
    sure = _confidence_at(level, observations)
    if sure is not None and sure < LEAST_CONFIDENCE:
        return None, Text(
            f"未确定责任节段：{level} 形态最重，但模型置信度仅 {sure:.0%}，请医生指定节段。",
            f"No index level: {level} shows the worst morphology, but with a confidence of {sure:.0%} only; "
            "a clinician must name the level.",
        )
    alike = sum(1 for item in candidates if item[0] == worst[0])
    tie_zh = "（多个节段形态同级，取退变更重、再取更低者）" if alike > 1 else ""
    tie_en = " (several levels alike: the more degenerated, then the lower one)" if alike > 1 else ""
    return level, Text(
        f"责任节段 {level} 按形态最重的节段暂定{tie_zh}，请医生确认。",
        f"Index level {level} was taken as the level with the worst morphology{tie_en}; a clinician must confirm it.",
    )


def _confidence_at(level: str, observations: Sequence[Resource]) -> float | None:
    """Confidence of the model in the morphology of a level; None once a person has signed it."""
    for item in observations:
        if finding_code(item) == "F01" and _level_of(item) == level and item.get("status") == "preliminary":
            for component in item.get("component", []):
                codes = {coding.get("code") for coding in component.get("code", {}).get("coding", [])}
                if "confidence" in codes:
                    return float(component["valueQuantity"]["value"])
    return None


def _intended_use(patient: Resource | None, today: date) -> tuple[Text, ...]:
    born = str((patient or {}).get("birthDate", ""))
    if len(born) != 10:
        return ()
    birth = date.fromisoformat(born)
    age_years = today.year - birth.year - ((today.month, today.day) < (birth.month, birth.day))
    if age_years >= 18:
        return ()
    return (Text("患者未满 18 岁，超出预期用途。", "The patient is under 18: outside the intended use."),)
