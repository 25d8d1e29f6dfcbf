"""Why a study is in the queue, in words for the annotator: Chinese first, English beside. Pure; names no person."""

from __future__ import annotations

from collections.abc import Sequence

from ai_services.training.active_learning.order import Place
from ai_services.training.active_learning.uncertainty import Unsure
from terminology.codes import FINDINGS

_KINDS = {"site": "机构", "scanner": "设备", "sex": "性别", "age": "年龄段", "grade": "最高分级"}
_MOST = 2
_ENTROPY = 0.5
"""POLICY: entropy from which a finding is named as unsure."""
_FAR = 0.5
"""POLICY: share of the largest distance from which a study is called unlike the others."""


def reasons(place: Place, ranked: Sequence[Unsure], *, numbering_confident: bool | None) -> tuple[str, str]:
    """Say why, in Chinese and English.

    Parameters
    ----------
    place : of the study
    ranked : its findings, the most unsure first
    numbering_confident : whether the model was sure of its levels
    """
    zh, en = [], []
    for item in [one for one in ranked if one.entropy >= _ENTROPY][:_MOST]:
        known = FINDINGS[item.code]
        level = item.level or ""
        zh.append(f"{level} {known.display_zh}不确定（模型置信度 {item.confidence:.2f}）")
        en.append(f"{known.display} at {level} is unsure (model's confidence {item.confidence:.2f})")
    if numbering_confident is False:
        zh.append("椎体计数不可靠")
        en.append("the numbering of levels is unsure")
    for kind, group, count, all_ in place.rare:
        zh.append(f"{_KINDS.get(kind, kind)} {group} 的已标注检查少（{count}/{all_}）")
        en.append(f"few labelled studies of {kind} {group} ({count} of {all_})")
    if place.distance >= _FAR:
        zh.append("与已标注的检查差别大")
        en.append("unlike the studies that are labelled")
    if not zh:
        zh.append("用于补足队列：模型较有把握，且与已标注的检查相近")
        en.append("fills the queue: the model is fairly sure, and studies like it are labelled")
    return "；".join(zh), "; ".join(en)
