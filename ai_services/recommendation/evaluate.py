"""Facts → a verdict for every option, with the rules for and against and what is still missing (stage 5).

Pure and deterministic (clinical model §3.4, §3.5): worst of C > RC > E; HOLD stops ranking; nothing is learned here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ai_services.recommendation.conditions import Facts, FactValue
from ai_services.recommendation.rule_base import Rule, RuleBase, RuleEffect, Text

Verdict = Literal["eligible", "relatively-contraindicated", "contraindicated", "not-assessable"]
Stance = Literal["for", "against", "note"]

_STANCES: dict[str, Stance] = {
    "E": "for",
    "PREF+": "for",
    "RC": "against",
    "C": "against",
    "PREF-": "against",
    "FLAG": "note",
    "HOLD": "note",
}
_VERDICTS: tuple[tuple[str, Verdict], ...] = (
    ("C", "contraindicated"),
    ("RC", "relatively-contraindicated"),
    ("E", "eligible"),
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One rule that spoke about one option."""

    rule: Rule
    effect: RuleEffect

    @property
    def stance(self) -> Stance:
        """Whether it speaks for or against the option, or only adds a note."""
        return _STANCES[self.effect.effect]


@dataclass(frozen=True, slots=True)
class OpenRule:
    """A rule that could speak once the missing facts are known."""

    rule: Rule
    missing: frozenset[str]


@dataclass(frozen=True, slots=True)
class OptionAssessment:
    """What the rules say about one option.

    `rank` counts from 1 and repeats for ties (`tied`); None where the option is not ranked.
    """

    option: str
    verdict: Verdict
    spoken: tuple[Spoken, ...]
    open_rules: tuple[OpenRule, ...]
    available: bool = True
    score: float | None = None
    rank: int | None = None
    tied: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """A reason not to rank anything yet."""

    rule: Rule
    urgent: bool


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The whole answer of the rule base to one set of facts.

    Parameters
    ----------
    assessments : all options, ranked ones first in order, then the others by id
    holds : reasons why nothing is ranked
    missing : each missing fact with the rules it would decide
    blocked_reason : set whenever fewer than the required number of options is left
    if_corrected : verdicts once the correctable states are corrected (hypothetical); None when nothing is to correct
    """

    assessments: tuple[OptionAssessment, ...]
    holds: tuple[Hold, ...]
    missing: Mapping[str, tuple[str, ...]]
    blocked_reason: Text | None
    plan_export_blocked: bool
    urgent: bool
    if_corrected: Mapping[str, Verdict] | None
    rules_version: str
    ranking_version: str

    @property
    def not_contraindicated(self) -> int:
        """How many options are left."""
        return sum(1 for item in self.assessments if item.verdict != "contraindicated")


@dataclass(slots=True)
class _Tally:
    """What was collected while the rules were read."""

    spoken: defaultdict[str, list[Spoken]] = field(default_factory=lambda: defaultdict(list))
    opened: defaultdict[str, list[OpenRule]] = field(default_factory=lambda: defaultdict(list))
    holds: dict[str, Hold] = field(default_factory=dict)
    missing: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def evaluate(facts: Facts, base: RuleBase) -> Recommendation:
    """Evaluate every rule on what is known.

    Parameters
    ----------
    facts : name to value; a name that is not there is unknown, never false
    base : the rule base
    """
    tally = _read_rules(facts, base)
    assessments = [_assess(option, tally) for option in base.options]
    ranked = assessments if tally.holds else _ranked(assessments, base)
    ordered = tuple(sorted(ranked, key=lambda item: (item.rank is None, item.rank or 0, item.option)))
    spoken = [one for item in ordered for one in item.spoken]
    return Recommendation(
        assessments=ordered,
        holds=tuple(tally.holds.values()),
        missing={name: tuple(rules) for name, rules in sorted(tally.missing.items())},
        blocked_reason=_blocked_reason(ordered, base),
        plan_export_blocked=any(one.effect.blocks_plan_export for one in spoken),
        urgent=any(one.effect.urgent for one in spoken),
        if_corrected=_if_corrected(facts, base, tally),
        rules_version=base.version,
        ranking_version=base.ranking.version,
    )


def _read_rules(facts: Facts, base: RuleBase) -> _Tally:
    tally = _Tally()
    for rule in base.rules:
        about_option = "option" in rule.condition.facts
        for effect in rule.effects:
            shared = None if about_option else rule.condition.evaluate(facts)
            for option in effect.options:
                truth = shared or rule.condition.evaluate({**facts, "option": option})
                if truth.value:
                    tally.spoken[option].append(Spoken(rule, effect))
                    if effect.effect == "HOLD":
                        tally.holds[rule.id] = Hold(rule, effect.urgent)
                elif truth.value is None:
                    _open(tally, option, OpenRule(rule, _asked_as(truth.missing, base)))
    return tally


def _asked_as(missing: frozenset[str], base: RuleBase) -> frozenset[str]:
    """Name derived facts by what a person would be asked."""
    return frozenset(base.facts[name].derived_from or name for name in missing)


def _open(tally: _Tally, option: str, opened: OpenRule) -> None:
    if opened not in tally.opened[option]:
        tally.opened[option].append(opened)
    for name in sorted(opened.missing):
        if opened.rule.id not in tally.missing[name]:
            tally.missing[name].append(opened.rule.id)


def _assess(option: str, tally: _Tally) -> OptionAssessment:
    spoken = tuple(tally.spoken[option])
    effects = {one.effect.effect for one in spoken if not one.effect.about_path}
    verdict = next((verdict for effect, verdict in _VERDICTS if effect in effects), None)
    opened = tuple(tally.opened[option])
    if verdict is None:
        # Silence means "nothing against it" only where no rule is left that could still speak.
        verdict = "not-assessable" if any(_could_judge(one.rule, option) for one in opened) else "eligible"
    available = not any(one.effect.unavailable for one in spoken)
    return OptionAssessment(option, verdict, spoken, opened, available)


def _could_judge(rule: Rule, option: str) -> bool:
    return any(
        option in effect.options and effect.effect in ("E", "RC", "C") and not effect.about_path
        for effect in rule.effects
    )


def _ranked(assessments: list[OptionAssessment], base: RuleBase) -> list[OptionAssessment]:
    """Score and rank what is left (clinical model §3.5); no prognosis model yet, so its terms are absent."""
    scored = [replace(item, score=_score(item, base)) if _rankable(item) else item for item in assessments]
    scores = [item.score for item in scored if item.score is not None]
    return [
        item
        if item.score is None
        else replace(
            item,
            rank=1 + sum(1 for score in scores if score > item.score),
            tied=scores.count(item.score) > 1,
        )
        for item in scored
    ]


def _rankable(item: OptionAssessment) -> bool:
    return item.available and item.verdict in ("eligible", "relatively-contraindicated")


def _score(item: OptionAssessment, base: RuleBase) -> float:
    effects = [one.effect.effect for one in item.spoken if not one.effect.about_path]
    preference = effects.count("PREF+") - effects.count("PREF-")
    return base.ranking.preference * preference - base.ranking.relative_contraindication * effects.count("RC")


def _blocked_reason(assessments: tuple[OptionAssessment, ...], base: RuleBase) -> Text | None:
    left = [item for item in assessments if _rankable(item)]
    if len(left) >= base.ranking.minimum_options:
        return None
    waiting = [item for item in assessments if item.verdict == "not-assessable" and item.available]
    facts = sorted({name for item in waiting for opened in item.open_rules for name in opened.missing})
    reasons: dict[str, Text] = {}
    for item in assessments:
        for one in item.spoken:
            if (one.effect.effect == "C" and not one.effect.about_path) or one.effect.unavailable:
                reasons.setdefault(one.rule.id, one.rule.text)
    zh = "；".join(f"{rule}：{text.zh}" for rule, text in reasons.items())
    en = "; ".join(f"{rule}: {text.en}" for rule, text in reasons.items())
    if facts:
        zh += f"；另有 {len(waiting)} 个方案缺少资料：{'、'.join(base.facts[name].label.zh for name in facts)}"
        en += f"; {len(waiting)} more wait for: {', '.join(base.facts[name].label.en for name in facts)}"
    return Text(f"仅余 {len(left)} 个可评估的非禁忌方案。{zh}", f"Only {len(left)} assessed options are left. {en}")


def _if_corrected(facts: Facts, base: RuleBase, tally: _Tally) -> dict[str, Verdict] | None:
    speaking = {one.rule.id: one.rule for spoken in tally.spoken.values() for one in spoken if one.rule.correctable}
    if not speaking:
        return None
    corrected: dict[str, FactValue] = dict(facts)
    for rule in speaking.values():
        corrected.update(dict.fromkeys(rule.condition.facts, False))
    hypothetical = _read_rules(corrected, base)
    return {option: _assess(option, hypothetical).verdict for option in base.options}
