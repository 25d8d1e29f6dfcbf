"""Measurements and grades → findings per level; what cannot be known from sagittal T2 is said to be absent (stage 4).

Finding codes: clinical model §1.4; absent reasons: https://hl7.org/fhir/R4/valueset-data-absent-reason.html.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_services.pipelines.lumbar_mr.grade import DiscGrade
from ai_services.pipelines.lumbar_mr.measure import LOW_RESOLUTION_SLICE_MM, Measured
from ai_services.prediction import Finding, FindingQuality

REPORTED_LEVELS = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2")
"""Levels that every report speaks about, seen or not; T12-L1 is reported when seen."""

_AXIAL = ("needs axial T2 images", "需要轴位 T2 图像")
_T1 = ("needs sagittal T1 as well as T2 images", "除矢状位 T2 外还需要矢状位 T1 图像")
_LATERAL = (
    "needs a reader of the lateral slices; this version does not grade the foramina",
    "需判读外侧层面, 本版本不评估椎间孔",
)
_STANDING = ("needs a standing whole-spine film", "需要站立位全脊柱片")
_DYNAMIC = ("needs flexion and extension films", "需要过屈过伸位片")
_CT = ("needs CT", "需要 CT")
_NOT_YET = ("not measured by this version", "本版本未测量")

NOT_COMPUTABLE: tuple[tuple[str, str, tuple[str, str]], ...] = (
    ("F02", "not-performed", _AXIAL),
    ("F03", "not-performed", _NOT_YET),
    ("F04", "not-performed", _AXIAL),
    ("F05", "not-performed", _AXIAL),
    ("F07", "not-performed", _T1),
    ("F08", "not-performed", _AXIAL),
    ("F09", "not-performed", _AXIAL),
    ("F10", "not-performed", _LATERAL),
    ("F11", "not-performed", _AXIAL),
    ("F12", "not-performed", _NOT_YET),
    ("F14", "not-performed", _NOT_YET),
    ("F15", "not-performed", _NOT_YET),
    ("F16", "not-performed", _STANDING),
    ("F17", "not-performed", _DYNAMIC),
    ("F18", "not-performed", _CT),
    ("F19", "not-performed", _CT),
    ("F20", "not-performed", _CT),
    ("F21", "not-performed", _CT),
)


FEWEST_SLICES = 5
"""POLICY: fewer sagittal slices do not cover the canal, so nothing is called seen well."""


LEAST_GRADE_PROBABILITY = 0.45
"""A Pfirrmann grade below it is withheld: one in twenty in the cross-validation of 0.4.0; of these 40 % were right.

Figures: `foramen model robustness`.
"""


def level_findings(
    level: str,
    segment_number: int,
    grade: DiscGrade,
    height_index: Measured | None,
    canal: Measured | None,
    slice_mm: float,
    slice_count: int,
) -> list[Finding]:
    """Findings of one level whose disc was found; coarse or few slices say so in `quality`."""
    coarse = slice_mm > LOW_RESOLUTION_SLICE_MM or slice_count < FEWEST_SLICES
    quality: FindingQuality = "low_resolution" if coarse else "ok"
    return [
        Finding(
            code="F01",
            level=level,
            value=grade.morphology,
            confidence=grade.morphology_probability,
            segment_number=segment_number,
            quality=quality,
        ),
        _pfirrmann(level, grade, segment_number, quality),
        _measurement("F13", level, height_index, "{ratio}", segment_number, quality),
        _measurement("canal-ap", level, canal, "mm", segment_number, quality),
    ]


def _pfirrmann(level: str, grade: DiscGrade, segment_number: int, quality: FindingQuality) -> Finding:
    if grade.pfirrmann_probability < LEAST_GRADE_PROBABILITY:
        told = f"{grade.pfirrmann_probability:.2f}"
        return Finding(
            code="F06",
            level=level,
            absent_reason="unknown",
            absent_text_en=f"no grade is likely enough: the likeliest has probability {told}",
            absent_text_zh=f"各级概率均过低, 最高为 {told}, 未予分级",
            segment_number=segment_number,
            quality=quality,
        )
    return Finding(
        code="F06",
        level=level,
        value=str(grade.pfirrmann),
        confidence=grade.pfirrmann_probability,
        uncertainty=grade.pfirrmann_deviation,
        expected=grade.pfirrmann_expected,
        segment_number=segment_number,
        quality=quality,
    )


def level_not_seen(level: str) -> list[Finding]:
    """Findings of a level whose disc was not found: unknown, never normal."""
    return _unknown(level, "the disc was not found in the images", "图像中未找到该椎间盘")


def level_not_sure(level: str, segment_number: int) -> list[Finding]:
    """Findings of a disc whose outline is too uncertain to grade or measure it."""
    return _unknown(level, "the outline of the disc is too uncertain", "该椎间盘的分割不确定性过高", segment_number)


def _unknown(level: str, text_en: str, text_zh: str, segment_number: int | None = None) -> list[Finding]:
    return [
        Finding(
            code=code,
            level=level,
            absent_reason="unknown",
            absent_text_en=text_en,
            absent_text_zh=text_zh,
            method="derived" if code in ("F13", "canal-ap") else "model",
            segment_number=segment_number,
        )
        for code in ("F01", "F06", "F13", "canal-ap")
    ]


def study_findings() -> list[Finding]:
    """Findings that this input cannot give at any level, once for the study."""
    return [
        Finding(
            code=code,
            level=None,
            absent_reason=reason,
            absent_text_en=text[0],
            absent_text_zh=text[1],
            quality="ok" if text is _NOT_YET else "missing_sequence",
        )
        for code, reason, text in NOT_COMPUTABLE
    ]


def levels_without(found: Sequence[str]) -> list[str]:
    """Levels that the report must mention although no disc was found there."""
    return [level for level in REPORTED_LEVELS if level not in found]


def _measurement(
    code: str, level: str, measured: Measured | None, unit: str, segment_number: int, quality: FindingQuality
) -> Finding:
    if measured is None:
        return Finding(
            code=code,
            level=level,
            absent_reason="unknown",
            absent_text_en="its borders are not all visible in the best slice",
            absent_text_zh="在最佳层面中其边界未完整显示",
            method="derived",
            segment_number=segment_number,
            quality=quality,
        )
    digits = 2 if unit == "{ratio}" else 1
    return Finding(
        code=code,
        level=level,
        value=round(measured.value, digits),
        unit=unit,
        uncertainty=round(measured.uncertainty, digits),
        method="derived",
        segment_number=segment_number,
        quality=quality,
    )
