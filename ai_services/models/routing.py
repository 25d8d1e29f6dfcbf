"""Which version speaks for a study: rules as data, the first that fits decides (stage 4).

A rule names features of the study and a released version, and may take a share of the studies only (A/B). A study
always falls into the same share: it is drawn by a hash of its UID, so that a second run asks the same version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FEATURES = ("modality", "body_part", "sequence", "institution")


class RoutingError(Exception):
    """The rules cannot be used; the message names rule and element."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Parameters
    ----------
    when : feature → accepted values, compared without regard to case; features that are not named fit anything
    version : that speaks
    share : 0..1 of the fitting studies
    """

    when: Mapping[str, tuple[str, ...]]
    version: str
    share: float = 1.0

    def as_json(self) -> dict[str, Any]:
        """For storage."""
        return {"when": {name: list(values) for name, values in self.when.items()}} | {
            "version": self.version,
            "share": self.share,
        }


def read_rules(document: Any) -> tuple[Rule, ...]:
    """Read rules: a list of ``{when: {modality: MR, sequence: [t2, space]}, version: "0.2.0", share: 0.5}``.

    Raises
    ------
    RoutingError
        Something else stands there.
    """
    if not isinstance(document, list):
        raise RoutingError("rules are a list")
    return tuple(_rule(number, entry) for number, entry in enumerate(document, start=1))


def choose(rules: Sequence[Rule], features: Mapping[str, str], study_instance_uid: str) -> str | None:
    """The version of the first rule that fits, or None where none does: the current release speaks.

    Parameters
    ----------
    rules : in order
    features : of the study; a feature that is not known fits no rule that names it
    study_instance_uid : decides the share
    """
    for number, rule in enumerate(rules):
        fits = all(features.get(name, "").casefold() in values for name, values in rule.when.items())
        if fits and _draw(study_instance_uid, number) < rule.share:
            return rule.version
    return None


def _draw(study_instance_uid: str, number: int) -> float:
    digest = hashlib.sha256(f"{number}:{study_instance_uid}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _rule(number: int, entry: Any) -> Rule:
    if not isinstance(entry, dict) or not isinstance(entry.get("version"), str):
        raise RoutingError(f"rule {number}: version is the version's name, as text")
    unknown = set(entry) - {"when", "version", "share"}
    if unknown:
        raise RoutingError(f"rule {number}: {sorted(unknown)[0]} is not an element of a rule")
    when = entry.get("when") or {}
    if not isinstance(when, dict) or not set(when) <= set(FEATURES):
        raise RoutingError(f"rule {number}: when names features of {', '.join(FEATURES)}")
    share = entry.get("share", 1.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise RoutingError(f"rule {number}: share is a number above 0, at most 1")
    return Rule({name: _values(number, name, value) for name, value in when.items()}, entry["version"], float(share))


def _values(number: int, name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str) and item for item in values):
        raise RoutingError(f"rule {number}: when.{name} is a word or a list of words")
    return tuple(item.casefold() for item in values)
