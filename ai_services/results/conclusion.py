"""The words of the report: Chinese first, then English, level by level, with what could not be computed (stage 5).

Shown near every AI value (clinical model §9): value, unit, uncertainty, model and version, verification state.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_services.prediction import Finding, Prediction
from ai_services.results.context import NOT_A_DEVICE_EN, NOT_A_DEVICE_ZH
from terminology.codes import FINDINGS, LEVELS, MORPHOLOGY, PFIRRMANN

_DIGITS = {"{ratio}": 2, "1": 2}
_UNIT_TEXT = {"{ratio}": "", "1": "", "mm": " mm", "%": "%", "deg": "°"}


def conclusion_zh(prediction: Prediction) -> str:
    """The conclusion in Chinese."""
    lines = [_level_line(level, items, chinese=True) for level, items in _levels(prediction.findings)]
    count = prediction.numbering
    numbering = "" if count.confident else "椎体计数不可靠，请确认节段。"
    models = "、".join(f"{model.name} {model.version}" for model in prediction.models)
    return f"{''.join(lines)}{numbering}AI 初步结果，未经医生核实；模型 {models}；{NOT_A_DEVICE_ZH}。"


def conclusion_en(prediction: Prediction) -> str:
    """The conclusion in English."""
    lines = [_level_line(level, items, chinese=False) for level, items in _levels(prediction.findings)]
    numbering = "" if prediction.numbering.confident else "Vertebral numbering is not reliable, confirm the level. "
    models = ", ".join(f"{model.name} {model.version}" for model in prediction.models)
    return (
        f"{''.join(lines)}{numbering}Preliminary AI result, not verified by a clinician; model {models}; "
        f"{NOT_A_DEVICE_EN}."
    )


def _levels(findings: Sequence[Finding]) -> list[tuple[str | None, list[Finding]]]:
    """Findings by level from cranial to caudal, as radiologists read; findings about the study last."""
    by_level: dict[str | None, list[Finding]] = {}
    for finding in findings:
        by_level.setdefault(finding.level, []).append(finding)
    order = {level: index for index, level in enumerate(("T11-T12", *LEVELS))}
    return sorted(by_level.items(), key=lambda item: order.get(item[0] or "", len(order)))


def _level_line(level: str | None, findings: Sequence[Finding], *, chinese: bool) -> str:
    parts = [_statement(item, chinese=chinese) for item in findings if item.value is not None]
    parts += _absent(findings, chinese=chinese)
    if chinese:
        return f"{level or '全片'}：{'，'.join(parts)}。"
    return f"{level or 'Study'}: {', '.join(parts)}. "


def _absent(findings: Sequence[Finding], *, chinese: bool) -> list[str]:
    """What could not be computed, grouped by the reason."""
    reasons: dict[str, list[str]] = {}
    for item in findings:
        if item.value is None:
            reason = (item.absent_text_zh if chinese else item.absent_text_en) or ""
            reasons.setdefault(reason, []).append(_name(item.code, chinese=chinese))
    if chinese:
        return [f"未能评估{'、'.join(names)}（{reason}）" for reason, names in reasons.items()]
    return [f"not assessable: {', '.join(names)} ({reason})" for reason, names in reasons.items()]


def _statement(finding: Finding, *, chinese: bool) -> str:
    name = _name(finding.code, chinese=chinese)
    if isinstance(finding.value, str):
        known = {"F01": MORPHOLOGY, "F06": PFIRRMANN}.get(finding.code, {}).get(finding.value)
        value = f"{name} {finding.value}" if known is None else known.display_zh if chinese else known.display
        if finding.confidence is None:
            return value
        return (
            f"{value}（置信度 {finding.confidence:.0%}）"
            if chinese
            else f"{value} (confidence {finding.confidence:.0%})"
        )
    unit = _UNIT_TEXT.get(finding.unit or "1", f" {finding.unit}")
    digits = _DIGITS.get(finding.unit or "1", 1)
    margin = f"±{finding.uncertainty:.{digits}f}" if finding.uncertainty is not None else ""
    return f"{name} {finding.value:.{digits}f}{margin}{unit}"


def _name(code: str, *, chinese: bool) -> str:
    known = FINDINGS.get(code)
    if known is None:
        return code
    return known.display_zh if chinese else known.display
