"""The quality report as one HTML page that needs nothing else: measures and pictures, Chinese first, English beside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from numpy.typing import NDArray
from PIL import Image

from ai_services.quality.bias_field import bias_field
from ai_services.quality.measure import CannotLookError
from ai_services.quality.pixel_measures import foreground_of
from ai_services.quality.report import VERSION, SeriesReport

GRADES = {
    "good": {"zh": "良好", "en": "good"},
    "doubtful": {"zh": "存疑", "en": "doubtful"},
    "poor": {"zh": "较差", "en": "poor"},
    "unknown": {"zh": "无法判断", "en": "could not look"},
}
NAMES = {
    "noise": {"zh": "噪声 (占信号)", "en": "noise, of the signal"},
    "bias-field": {"zh": "偏置场 (变异系数)", "en": "bias field, coefficient of variation"},
    "ghosting": {"zh": "运动伪影 (鬼影占信号)", "en": "ghosts of motion, of the signal"},
    "slice-shift": {"zh": "层间移位", "en": "shift between slices"},
    "wrap": {"zh": "卷褶可疑 (触及两侧边界)", "en": "wrap suspected: body at both borders"},
    "spacing-irregularity": {"zh": "层间距不规则", "en": "irregularity of slice distances"},
    "missing-slices": {"zh": "缺层数", "en": "missing slices"},
    "slice-gap": {"zh": "层间隙", "en": "gap between slices"},
    "head-foot-coverage": {"zh": "头足方向覆盖", "en": "coverage from head to foot"},
    "left-right-coverage": {"zh": "左右方向覆盖", "en": "coverage from left to right"},
    "burnt-in-text": {"zh": "疑似烧录文字 (字形数)", "en": "burnt-in text suspected, shapes"},
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the page as a data URL."""

    source: str
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class ReportedSeries:
    """A report with its pictures."""

    report: SeriesReport
    pictures: tuple[Picture, ...]


def pictures_of(stack: NDArray[np.float32] | None) -> tuple[Picture, ...]:
    """Middle slice, where the body was seen, and the bias field there (middle grey: 1, black 0.5, white 1.5)."""
    if stack is None:
        return ()
    middle = len(stack) // 2
    plane = stack[middle]
    low, high = np.percentile(plane, (1, 99))
    grey = np.clip((plane - low) / max(high - low, 1e-6), 0, 1)
    found = [Picture(_png(grey), "中间层", "middle slice")]
    try:
        body = foreground_of(stack)
        field = bias_field(stack, body)[middle]
    except CannotLookError:
        return tuple(found)
    found.append(Picture(_png(np.where(body[middle], grey, grey * 0.3)), "识别的人体区域", "where the body was seen"))
    found.append(Picture(_png(np.clip(field - 0.5, 0, 1)), "偏置场 (0.5–1.5)", "bias field (0.5 to 1.5)"))
    return tuple(found)


def page_of(series: Sequence[ReportedSeries], made: datetime) -> str:
    """Draw the page."""
    environment = Environment(loader=PackageLoader("ai_services.quality"), autoescape=select_autoescape())
    template = environment.get_template("report.html")
    return template.render(
        series=series, names=NAMES, grades=GRADES, version=VERSION, made=made.isoformat(timespec="seconds")
    )


def _png(values: NDArray[np.floating]) -> str:
    """Draw values of 0 to 1."""
    file = BytesIO()
    Image.fromarray((values * 255).astype(np.uint8)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
