"""Build our own terminology as FHIR resources, with Chinese designations.

https://hl7.org/fhir/R4/codesystem.html, https://hl7.org/fhir/R4/valueset.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from terminology import codes, systems
from terminology.analysis_reasons import ANALYSIS_REASONS
from terminology.own.maps import concept_maps

VERSION = "1.0.0"
_PUBLISHER = "The Foramen authors"
Row = tuple[str, str, str]
"""(code, English display, Chinese display)."""

LEVELS: tuple[Row, ...] = tuple(
    (level, f"{level} intervertebral disc", f"{level.replace('-', '–')} 椎间盘") for level in codes.LEVELS
)
NUMBERING: tuple[Row, ...] = (
    ("counted-from-C2", "Counted down from C2", "自 C2 向下计数"),
    ("counted-from-T12-rib", "Counted from the T12 rib", "自 T12 肋骨计数"),
    ("sacrum-only", "Counted up from the sacrum only", "仅自骶骨向上计数"),
)
COMPONENTS: tuple[Row, ...] = (
    ("confidence", "Confidence", "置信度"),
    ("uncertainty", "Uncertainty", "不确定度"),
    ("expected", "Expected value", "期望值"),
    ("segment-number", "Segment number", "分割编号"),
    ("quality", "Quality", "质量"),
    ("numbering-confident", "Numbering is reliable", "计数是否可靠"),
    ("surface-distance", "Mean distance of surfaces, worst vertebra", "椎体表面平均距离（最差椎体）"),
    ("overlap", "Overlap (Dice)", "重叠度 (Dice)"),
    ("centroid-distance", "Distance of centroids (root mean square)", "椎体中心距离（均方根）"),
    ("start-spread", "Spread of results of different starts", "不同起点结果的差异"),
    ("vertebrae", "Vertebrae in common", "共有椎体数"),
)
DECISIONS: tuple[Row, ...] = (
    ("accept", "Accepted", "接受"),
    ("edit", "Accepted with changes", "修改后接受"),
    ("reject", "Rejected", "拒绝"),
)


def _rows(items: Iterable[codes.Code]) -> tuple[Row, ...]:
    return tuple((item.code, item.display, item.display_zh) for item in items)


def _code_system(url: str, title: str, title_zh: str, rows: tuple[Row, ...], content: str) -> dict[str, Any]:
    identity = url.rpartition("/")[2]
    return {
        "resourceType": "CodeSystem",
        "id": identity,
        "url": url,
        "version": VERSION,
        "name": "".join(part.capitalize() for part in identity.split("-")),
        "title": f"{title} {title_zh}",
        "status": "active",
        "experimental": False,
        "publisher": _PUBLISHER,
        "caseSensitive": True,
        "valueSet": value_set_url(url),
        "content": content,
        "count": len(rows),
        "concept": [
            {"code": code, "display": display, "designation": [{"language": "zh-CN", "value": display_zh}]}
            for code, display, display_zh in rows
        ],
    }


def value_set_url(system: str) -> str:
    """URL of the value set that holds all codes of one of our code systems."""
    return system.replace("/CodeSystem/", "/ValueSet/")


def _value_set(system: dict[str, Any]) -> dict[str, Any]:
    kept = ("id", "version", "name", "title", "status", "experimental", "publisher")
    return {
        "resourceType": "ValueSet",
        "url": system["valueSet"],
        **{name: system[name] for name in kept},
        "immutable": True,
        "compose": {"include": [{"system": system["url"]}]},
    }


def own_resources() -> list[dict[str, Any]]:
    """Return all our code systems, value sets and concept maps.

    `content` is ``fragment`` where programs may still write codes that are not listed here.
    """
    tasks = (codes.ANALYSE_STUDY, codes.RECOMMEND_OPTIONS, codes.ANNOTATE)
    tags = (codes.SYNTHETIC, codes.AI_GENERATED, codes.MODEL_RECALLED)
    found = [
        _code_system(systems.FINDING, "Imaging finding", "影像所见", _rows(codes.FINDINGS.values()), "complete"),
        _code_system(systems.MORPHOLOGY, "Disc morphology", "椎间盘形态", _rows(codes.MORPHOLOGY.values()), "complete"),
        _code_system(
            systems.PFIRRMANN, "Pfirrmann grade", "Pfirrmann 分级", _rows(codes.PFIRRMANN.values()), "complete"
        ),
        _code_system(systems.LEVEL, "Lumbar disc level", "腰椎间盘节段", LEVELS, "complete"),
        _code_system(systems.OPTION, "Treatment option", "治疗方案", _rows(codes.OPTIONS.values()), "complete"),
        _code_system(systems.TAG, "Tag", "标签", _rows(tags), "fragment"),
        _code_system(systems.TASK_CODE, "Kind of task", "任务类型", _rows(tasks), "fragment"),
        _code_system(
            systems.TASK_REASON,
            "Why a task waits",
            "任务等待原因",
            _rows((*codes.REGISTRATION_REASONS.values(), *ANALYSIS_REASONS.values())),
            "fragment",
        ),
        _code_system(
            systems.TASK_PERFORMER, "Kind of performer", "执行者类型", _rows([codes.BATCH_PERFORMER]), "fragment"
        ),
        _code_system(systems.NUMBERING, "Method of numbering", "椎体计数方法", NUMBERING, "complete"),
        _code_system(systems.COMPONENT, "Component of a finding", "影像所见的组成部分", COMPONENTS, "fragment"),
        _code_system(systems.DECISION, "Decision of a clinician", "医生决定", DECISIONS, "fragment"),
    ]
    return [*found, *(_value_set(system) for system in found), *concept_maps(VERSION, _PUBLISHER)]
