"""Loads the rule base, the option catalogue and the facts, and refuses what does not hold together (stage 5).

The rules are data so that a clinical board can review them; FHIR names them by `RULE_LIBRARY|version`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from ai_services.recommendation.conditions import Condition, parse_condition
from terminology.codes import OPTIONS

Effect = Literal["E", "RC", "C", "PREF+", "PREF-", "FLAG", "HOLD"]
Verification = Literal["sourced", "unverified", "policy"]
FactKind = Literal["clinical", "history", "imaging", "derived", "planning", "site", "process"]
FactType = Literal["boolean", "integer", "decimal", "code", "codes"]

_FOLDER = Path(__file__).parent


class RuleBaseError(ValueError):
    """The files of the rule base contradict each other or cannot be read."""


@dataclass(frozen=True, slots=True)
class Text:
    """One sentence in both languages."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class FactDefinition:
    """What a fact is: where it comes from, its type and limits, and its name for people."""

    name: str
    kind: FactKind
    type: FactType
    label: Text
    values: frozenset[str] = frozenset()
    minimum: float | None = None
    maximum: float | None = None
    derived_from: str | None = None


@dataclass(frozen=True, slots=True)
class RuleEffect:
    """What a rule does to some options when its condition is true."""

    options: tuple[str, ...]
    effect: Effect
    urgent: bool = False
    unavailable: bool = False
    blocks_plan_export: bool = False
    about_path: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with its reason and where it comes from; `stated` is the wording that a board reviews."""

    id: str
    condition: Condition
    effects: tuple[RuleEffect, ...]
    text: Text
    sources: tuple[str, ...]
    verification: Verification
    correctable: bool
    stated: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Figure:
    """A published figure about a group of patients, never about this one."""

    text: Text
    source: str
    n: int | None
    setting: Text


@dataclass(frozen=True, slots=True)
class Option:
    """One treatment option of the catalogue."""

    id: str
    name: Text
    abbreviation: str
    principle: Text
    anaesthesia: Text
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class RankingWeights:
    """Weights of the order of options (clinical model §3.5); policy, versioned and shown."""

    version: str
    relative_contraindication: float
    preference: float
    minimum_options: int


@dataclass(frozen=True, slots=True)
class RuleBase:
    """All that the evaluation needs, checked once."""

    version: str
    rules: tuple[Rule, ...]
    options: Mapping[str, Option]
    facts: Mapping[str, FactDefinition]
    ranking: RankingWeights


@lru_cache(maxsize=1)
def load_rule_base() -> RuleBase:
    """Read the packaged rule base.

    Raises
    ------
    RuleBaseError
        Unknown option, effect, fact or verification; a rule without text; ids that repeat.
    """
    document = _read("rules.yaml")
    facts = {name: _fact(name, entry) for name, entry in _read("facts.yaml").items()}
    options = {name: _option(name, entry) for name, entry in _read("options.yaml")["options"].items()}
    if set(options) != set(OPTIONS):
        raise RuleBaseError("options.yaml and terminology do not name the same options")
    rules = tuple(_rule(entry, document["groups"], facts) for entry in document["rules"])
    if len({rule.id for rule in rules}) != len(rules):
        raise RuleBaseError("a rule id repeats")
    ranking, weights = document["ranking"], document["ranking"]["weights"]
    return RuleBase(
        version=str(document["version"]),
        rules=rules,
        options=options,
        facts=facts,
        ranking=RankingWeights(
            str(ranking["version"]),
            float(weights["relative_contraindication"]),
            float(weights["preference"]),
            int(ranking["minimum_options"]),
        ),
    )


def _read(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8")))


def _text(entry: Mapping[str, Any]) -> Text:
    if not entry.get("zh") or not entry.get("en"):
        raise RuleBaseError(f"a text is missing in one language: {dict(entry)}")
    return Text(str(entry["zh"]), str(entry["en"]))


def _fact(name: str, entry: Mapping[str, Any]) -> FactDefinition:
    if entry["kind"] not in get_args(FactKind) or entry["type"] not in get_args(FactType):
        raise RuleBaseError(f"fact {name}: unknown kind or type")
    return FactDefinition(
        name,
        entry["kind"],
        entry["type"],
        _text(entry),
        # YAML reads a bare `none` as text, but `null` as nothing: the list must hold text only.
        frozenset(str(value) for value in entry.get("values", ())),
        entry.get("minimum"),
        entry.get("maximum"),
        entry.get("from"),
    )


def _option(name: str, entry: Mapping[str, Any]) -> Option:
    code = OPTIONS[name]
    figures = tuple(
        Figure(_text(figure), str(figure["source"]), figure["n"], _text(figure["setting"]))
        for figure in entry["figures"]
    )
    return Option(
        name,
        Text(code.display_zh, code.display),
        str(entry["abbreviation"]),
        _text(entry["principle"]),
        _text(entry["anaesthesia"]),
        figures,
    )


def _rule(entry: Mapping[str, Any], groups: Mapping[str, list[str]], facts: Mapping[str, FactDefinition]) -> Rule:
    if entry["verification"] not in get_args(Verification):
        raise RuleBaseError(f"{entry['id']}: unknown verification")
    if entry["verification"] == "sourced" and not entry["sources"]:
        raise RuleBaseError(f"{entry['id']}: says sourced, but names no source")
    return Rule(
        id=str(entry["id"]),
        condition=parse_condition(str(entry["when"]), facts),
        effects=tuple(_effect(entry["id"], effect, groups) for effect in entry["effects"]),
        text=_text(entry),
        sources=tuple(entry["sources"]),
        verification=entry["verification"],
        correctable=bool(entry.get("correctable", False)),
        stated={key: str(value) for key, value in entry["stated"].items()},
    )


def _effect(rule_id: str, entry: Mapping[str, Any], groups: Mapping[str, list[str]]) -> RuleEffect:
    options = entry["options"]
    names = tuple(groups[options] if isinstance(options, str) else options)
    if not names or not set(names) <= set(OPTIONS) or entry["effect"] not in get_args(Effect):
        raise RuleBaseError(f"{rule_id}: unknown option or effect")
    return RuleEffect(
        names,
        entry["effect"],
        urgent=bool(entry.get("urgent", False)),
        unavailable=bool(entry.get("unavailable", False)),
        blocks_plan_export=entry.get("blocks") == "plan-export",
        about_path=entry.get("scope") == "path",
    )
