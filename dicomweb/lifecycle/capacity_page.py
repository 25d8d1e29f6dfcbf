"""The capacity report as text of tables and as a page, Chinese and English; every step of the arithmetic is shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dicomweb.lifecycle.at_rest import AtRest
from dicomweb.lifecycle.capacity import TB, Forecast, ModalitySize, Plan

FILES = {"zh-CN": "capacity.html", "en": "capacity.en.html"}
_TEXTS: dict[str, dict[str, str]] = {
    "zh-CN": {
        "title": "影像容量与预测",
        "other": "English",
        "measured": "实测（每检查字节数）",
        "modality": "设备类型",
        "studies": "检查数",
        "instances": "影像数",
        "size": "合计",
        "mean": "均值",
        "median": "中位数",
        "largest": "最大",
        "arithmetic": "算式",
        "forecast": "预测",
        "year": "年",
        "added": "当年新增",
        "total": "年末合计",
        "full": "已满",
        "assumed": "每日检查数、增长与压缩率是假设，不是测量值。1 TB = 10¹² 字节。",
        "few": "实测检查少于 30 个的类型，均值不可靠。",
    },
    "en": {
        "title": "Room for images, and the forecast",
        "other": "中文",
        "measured": "Measured (bytes of a study)",
        "modality": "Modality",
        "studies": "Studies",
        "instances": "Instances",
        "size": "Sum",
        "mean": "Mean",
        "median": "Median",
        "largest": "Largest",
        "arithmetic": "Arithmetic",
        "forecast": "Forecast",
        "year": "Year",
        "added": "Added",
        "total": "Total at its end",
        "full": "full",
        "assumed": "Studies per day, growth and compression are assumed, not measured. 1 TB = 10¹² bytes.",
        "few": "The mean of a modality with fewer than 30 measured studies is not reliable.",
    },
}


def arithmetic(at_rest: AtRest, sizes: Sequence[ModalitySize], plan: Plan, found: Forecast) -> list[str]:
    """Return the steps, each a line that can be checked by hand. Pure."""
    means = {one.modality: one.mean_size for one in sizes}
    lines = [
        f"{modality}: {count:g} / d × {means[modality] / 1e6:,.2f} MB = {count * means[modality] / 1e9:,.3f} GB / d"
        for modality, count in plan.studies_per_day.items()
    ]
    lines.append(
        f"Σ × {plan.copies} (copies) × {plan.compression:g} (compression) = {found.per_day / 1e9:,.3f} GB / d"
        f" = {found.per_day * 365 / TB:,.3f} TB / a"
    )
    lines.append(f"{plan.capacity_tb:g} TB × (1 − {plan.reserve:g}) = {found.usable / TB:,.2f} TB")
    lines.append(
        f"{at_rest.received / 1e9:,.3f} GB (received) − {at_rest.saved / 1e9:,.3f} GB (saved: {at_rest.files} files,"
        f" {at_rest.original / 1e9:,.3f} → {at_rest.packed / 1e9:,.3f} GB{_ratio(at_rest)})"
        f" + {at_rest.unpacked / 1e9:,.3f} GB (unpacked again) − {at_rest.remote / 1e9:,.3f} GB (in the bucket)"
        f" = {at_rest.stored / 1e9:,.3f} GB"
    )
    lines.append(f"t₀ = {at_rest.stored * plan.copies / 1e9:,.3f} GB; {plan.growth_per_year:+.0%} / a")
    if found.days_left is not None:
        lines.append(f"→ {found.days_left:,} d = {found.days_left / 365:.1f} a")
    else:
        lines.append(f"→ > {len(found.years)} a")
    return lines


def _ratio(at_rest: AtRest) -> str:
    return f", {at_rest.original / at_rest.packed:.2f} : 1" if at_rest.packed else ""


@lru_cache(maxsize=1)
def _environment() -> Environment:
    loader = PackageLoader("dicomweb.lifecycle", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def capacity_page(
    lang: str, at_rest: AtRest, sizes: Sequence[ModalitySize], plan: Plan, found: Forecast, made_at: datetime
) -> str:
    """Draw the page in a language."""
    other = next(name for name in FILES if name != lang)
    values: dict[str, Any] = {
        "lang": lang,
        "t": _TEXTS[lang],
        "other_lang": other,
        "other_file": FILES[other],
        "sizes": sizes,
        "lines": arithmetic(at_rest, sizes, plan, found),
        "years": found.years,
        "usable": found.usable,
        "made_at": made_at.isoformat(timespec="seconds"),
        "few": any(one.studies < 30 for one in sizes),
    }
    return _environment().get_template("capacity.html").render(values)
