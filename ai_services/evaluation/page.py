"""The evaluation as one HTML page that needs nothing else: figures with intervals, subgroups, montage (stage 11)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from numpy.typing import NDArray
from PIL import Image

from ai_services.evaluation.lumbar_mr import SeriesResult

_PICTURE_SPACING_MM = 1.0
_COLOURS = {1: (94, 168, 255), 2: (255, 176, 59), 3: (72, 209, 150)}
_ALPHA = 0.45
NAMES = {
    "vertebra": ("椎体", "vertebra"),
    "disc": ("椎间盘", "disc"),
    "canal": ("椎管", "canal"),
    "dice": ("Dice", "Dice"),
    "dice_worst_series": ("Dice，最差序列", "Dice, worst series"),
    "hausdorff95_mm": ("HD95 (mm)", "HD95 (mm)"),
    "assd_mm": ("平均表面距离 (mm)", "ASSD (mm)"),
    "panoptic_quality": ("全景质量", "panoptic quality"),
    "looked_at": ("已分析的序列", "series looked at"),
    "count_right": ("椎间盘计数正确", "disc count right"),
    "one_more": ("多一个", "one more"),
    "one_fewer": ("少一个", "one fewer"),
    "numbering_confident": ("自认编号可靠", "numbering called sure"),
    "count_right_where_confident": ("自认可靠时计数正确", "count right where called sure"),
    "pfirrmann": ("Pfirrmann", "Pfirrmann"),
    "severity": ("突出程度", "severity"),
    "bulging": ("膨出", "bulging"),
    "herniation": ("突出", "herniation"),
    "narrowing": ("椎间隙变窄", "narrowing"),
    "modic": ("Modic", "Modic"),
    "spondylolisthesis": ("滑脱", "spondylolisthesis"),
    "accuracy": ("准确率", "accuracy"),
    "balanced_accuracy": ("平衡准确率", "balanced accuracy"),
    "within_one": ("相差不超过一级", "within one grade"),
    "quadratic_kappa": ("二次加权 κ", "quadratic κ"),
    "calibration_error": ("校准误差", "calibration error"),
    "auroc": ("AUROC", "AUROC"),
    "average_precision": ("平均精确率", "average precision"),
    "sensitivity": ("敏感度", "sensitivity"),
    "specificity": ("特异度", "specificity"),
    "positive_predictive_value": ("阳性预测值", "positive predictive value"),
}
GROUPS = {
    "sequence": ("序列", "sequence"),
    "vendor": ("厂商", "vendor"),
    "field_strength": ("场强", "field strength"),
    "sex": ("性别", "sex"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; `bar` is low, value and high on a scale of 0 to 1, None where it has no such scale."""

    zh: str
    en: str
    figure: dict[str, Any]
    bar: tuple[float, float, float] | None


def page_of(document: dict[str, Any], results: Sequence[SeriesResult], *, montage: int = 24) -> str:
    """Draw the page.

    Parameters
    ----------
    document : of `report_of`
    results : for the pictures; the worst outlines and counts come first
    montage : how many pictures
    """
    environment = Environment(loader=PackageLoader("ai_services.evaluation"), autoescape=select_autoescape())
    tables = [
        ("分割", "Segmentation", rows_of(document["segmentation"])),
        ("椎间盘计数", "Counting discs", rows_of(document["counting"])),
        ("分级：所有匹配的椎间盘", "Grading: every matched disc", rows_of(document["grading"])),
        (
            "分级：仅计数正确的患者",
            "Grading: only where the count is right",
            rows_of(document["grading_where_count_is_right"]),
        ),
    ]
    return environment.get_template("evaluation.html").render(
        document=document,
        tables=[table for table in tables if table[2]],
        subgroups=_subgroup_rows(document),
        groups=GROUPS,
        pictures=[_picture(result) for result in _telling(results)[:montage]],
    )


def rows_of(figures: dict[str, Any]) -> list[Row]:
    """Lines of one table, named for people."""
    return [
        Row(*_name(key), figure, _bar(key, figure)) for key, figure in figures.items() if figure["value"] is not None
    ]


def _name(key: str) -> tuple[str, str]:
    if key in NAMES:
        return NAMES[key]
    first, _, rest = key.partition("_")
    subject, measure = NAMES.get(first, (first, first)), NAMES.get(rest, (rest, rest))
    return f"{subject[0]} {measure[0]}", f"{subject[1]} {measure[1]}"


def _bar(key: str, figure: dict[str, Any]) -> tuple[float, float, float] | None:
    if key.endswith("_mm"):
        return None
    low, high = figure["interval_95"] or (figure["value"], figure["value"])
    return _clipped(low), _clipped(figure["value"]), _clipped(high)


def _clipped(number: float) -> float:
    return min(1.0, max(0.0, number))


def _subgroup_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every subgroup with the figures that are compared."""
    wanted = (
        ("segmentation", "disc_dice"),
        ("counting", "count_right"),
        ("grading", "pfirrmann_accuracy"),
        ("grading", "severity_accuracy"),
        ("grading", "herniation_auroc"),
    )
    rows = []
    for name, groups in document["subgroups"].items():
        for group, told in groups.items():
            figures = [told.get(part, {}).get(key) for part, key in wanted]
            rows.append({"kind": GROUPS[name], "group": group, "patients": told["patients"], "figures": figures})
    return rows


def _telling(results: Sequence[SeriesResult]) -> list[SeriesResult]:
    """Those with a picture: wrong counts first, then the worst outlines."""

    def rank(result: SeriesResult) -> tuple[int, float]:
        wrong = bool(result.truth) and len(result.discs) != len(result.truth)
        worst = min((outline.dice for outline in result.outlines.values()), default=1.0)
        return (0 if wrong else 1, worst)

    return sorted((result for result in results if result.picture is not None), key=rank)


def _picture(result: SeriesResult) -> dict[str, Any]:
    if result.picture is None:
        raise ValueError("the series has no picture")
    grey, classes, spacing_mm = result.picture
    return {
        "source": _png(grey, classes, spacing_mm),
        "zh": f"{len(result.discs)} 个椎间盘" + (f"，标注 {len(result.truth)} 个" if result.truth else ""),
        "en": f"{result.sequence}: {len(result.discs)} discs"
        + (f", graded {len(result.truth)}" if result.truth else ""),
        "patient": result.patient,
    }


def _png(grey: NDArray[np.float32], classes: NDArray[np.uint8], spacing_mm: float) -> str:
    low, high = np.percentile(grey, (1, 99.5))
    plane = np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1)
    colour = np.repeat((plane * 255)[..., None], 3, axis=2)
    for number, shade in _COLOURS.items():
        inside = classes == number
        colour[inside] = (1 - _ALPHA) * colour[inside] + _ALPHA * np.array(shade)
    image = Image.fromarray(
        np.concatenate([np.repeat((plane * 255)[..., None], 3, axis=2), colour], axis=1).astype(np.uint8)
    )
    factor = spacing_mm / _PICTURE_SPACING_MM
    image = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    file = BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
