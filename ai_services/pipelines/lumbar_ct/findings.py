"""Measurements → findings per disc level and vertebra; what could not be measured says why (stage 4).

Codes: `terminology.codes.FINDINGS`. Every number has its unit and the half width of its uncertainty; no number has a
calibrated confidence, as no labelled CT was there to calibrate on.
"""

from __future__ import annotations

from dataclasses import dataclass

from ai_services.pipelines.lumbar_ct.bone_geometry import Measured
from ai_services.prediction import Finding, FindingQuality

SIDES = ("right", "left")
COARSE_SLICE_MM = 1.5
"""POLICY: thicker slices blur a joint space; findings say low resolution."""

_WHY = {
    "pedicle-width": ("no closed pedicle is seen at its place", "未见完整椎弓根"),
    "canal-width-bone": ("a pedicle is not seen on both sides", "未见双侧椎弓根"),
    "canal-ap-bone": ("no lamina closes the canal behind", "未见封闭椎管的椎板"),
    "facet-angle": ("the joint space could not be told from the bones beside it", "关节间隙与邻骨无法分辨"),
    "facet-tropism": ("the angle of one side is not known", "一侧关节角未知"),
    "foramen-height": ("the pedicles above and below are not both seen", "未见上下椎弓根"),
    "foramen-width": ("bone does not close the foramen behind", "椎间孔后缘不封闭"),
    "foramen-area": ("bone does not close the foramen behind", "椎间孔后缘不封闭"),
}
_SACRAL = ("the pedicle of the sacrum is not measured by this version", "本版本不测量骶骨椎弓根")
_UNITS = {"facet-angle": "deg", "facet-tropism": "deg", "foramen-area": "mm2"}


@dataclass(frozen=True, slots=True)
class Sided:
    """A measurement of each side; None where there is none."""

    right: Measured | None
    left: Measured | None


def sided_findings(
    code: str, level: str, values: Sided, segment: int, quality: FindingQuality, *, sacral: bool = False
) -> list[Finding]:
    """Right and left, each a finding of its own code (``facet-angle-right``)."""
    return [finding(code, level, getattr(values, side), segment, quality, side=side, sacral=sacral) for side in SIDES]


def finding(
    code: str,
    level: str,
    measured: Measured | None,
    segment: int,
    quality: FindingQuality,
    *,
    side: str = "",
    sacral: bool = False,
) -> Finding:
    """One finding, or the reason why there is none.

    Parameters
    ----------
    code : without the side
    level : disc level or vertebra
    sacral : the absence is that of the sacrum's pedicle
    """
    name = f"{code}-{side}" if side else code
    if measured is None:
        text_en, text_zh = _SACRAL if sacral else _WHY[code]
        return Finding(
            code=name,
            level=level,
            absent_reason="unsupported" if sacral else "unknown",
            absent_text_en=text_en,
            absent_text_zh=text_zh,
            method="derived",
            segment_number=segment,
            quality=quality,
        )
    return Finding(
        code=name,
        level=level,
        value=round(measured.value, 1),
        unit=_UNITS.get(code, "mm"),
        uncertainty=round(max(measured.uncertainty, 0.1), 1),
        method="derived",
        segment_number=segment,
        quality=quality,
    )
