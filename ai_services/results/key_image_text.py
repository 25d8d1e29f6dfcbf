"""What stands beside a disc on a key image: level, Pfirrmann grade, confidence, and what is not normal (stage 5). Pure.

ASCII only: it must be readable whatever character set the images have, and by readers of any language.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_services.prediction import Finding, Prediction
from ai_services.results.context import RunContext

_ROMAN = {"1": "I", "2": "II", "3": "III", "4": "IV", "5": "V"}
_PLAIN = {"herniation-unspecified": "herniation"}
NOT_GRADED = "Pfirrmann -"


def short_level(level: str) -> str:
    """``L4-L5`` → ``L4/5``, ``L5-S1`` → ``L5/S1``."""
    upper, _, lower = level.partition("-")
    return f"{upper}/{lower[1:] if lower[:1] == upper[:1] else lower}"


def disc_text(findings: Sequence[Finding], level: str | None) -> str:
    """Text beside one disc: ``L4/5 Pfirrmann IV 0.81``, and a second line where its shape is not normal.

    Parameters
    ----------
    findings : of this disc
    level : of this disc, None where numbering does not reach
    """
    by_code = {item.code: item for item in findings}
    grade, shape = by_code.get("F06"), by_code.get("F01")
    graded = NOT_GRADED
    if grade is not None and grade.value is not None:
        value = str(grade.value)
        graded = f"Pfirrmann {_ROMAN.get(value, value)}{_confidence(grade)}"
    lines = [f"{short_level(level) if level else '?'} {graded}"]
    if shape is not None and shape.value not in (None, "normal"):
        value = str(shape.value)
        lines.append(f"{_PLAIN.get(value, value)}{_confidence(shape)}")
    return "\n".join(lines)


def notice_text(prediction: Prediction, context: RunContext) -> str:
    """What must not be overlooked: who says it, that nobody checked it, and what it cannot be relied on for."""
    versions = sorted({model.version for model in prediction.models})
    lines = [f"AI - UNVERIFIED   {context.pipeline} {' '.join(versions)}"]
    if not prediction.numbering.confident:
        lines.append("LEVELS UNCERTAIN: count the vertebrae")
    if context.synthetic:
        lines.append("SYNTHETIC")
    return "\n".join(lines)


def _confidence(finding: Finding) -> str:
    return "" if finding.confidence is None else f" {finding.confidence:.2f}"
