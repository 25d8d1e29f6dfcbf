"""What is said of one property of a series: a value with its unit and grade, or that it could not be looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

import yaml


class Grade(StrEnum):
    """How good a value is; UNKNOWN: it could not be looked at, which is neither good nor poor."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    POOR = "poor"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Measure:
    """One property.

    Parameters
    ----------
    code : a key of `limits.yaml`
    value : None: could not be looked at, for the reason given
    unit : UCUM
    grade : by the limits
    method : how it was found, with its source
    reason_en, reason_zh : why there is no value
    """

    code: str
    value: float | None
    unit: str
    grade: Grade
    method: str
    reason_en: str = ""
    reason_zh: str = ""


class CannotLookError(ValueError):
    """A property cannot be measured in this series."""

    def __init__(self, text_en: str, text_zh: str) -> None:
        super().__init__(text_en)
        self.text_en, self.text_zh = text_en, text_zh


def measured(code: str, value: float, method: str) -> Measure:
    """Grade a value by the limits."""
    limit = limits()[code]
    if not math.isfinite(value):
        raise ValueError("a measure is a finite number")
    sign = -1 if limit.get("higher") else 1
    grade = Grade.GOOD
    if sign * value >= sign * limit["doubtful"]:
        grade = Grade.DOUBTFUL
    if sign * value >= sign * limit["poor"]:
        grade = Grade.POOR
    return Measure(code, value, limit["unit"], grade, method)


def not_measured(code: str, method: str, reason: CannotLookError) -> Measure:
    """Say that a property could not be looked at."""
    return Measure(code, None, limits()[code]["unit"], Grade.UNKNOWN, method, reason.text_en, reason.text_zh)


@cache
def limits() -> dict[str, dict[str, Any]]:
    """Read `limits.yaml`: code → unit and limits."""
    text = resources.files("ai_services.quality").joinpath("limits.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return found
