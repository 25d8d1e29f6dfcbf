"""Words of the watch page: Chinese first, and English."""

from __future__ import annotations

from typing import Any

from terminology.codes import MORPHOLOGY, PFIRRMANN

_WORDS: dict[str, tuple[str, str]] = {
    "title": ("模型监测", "Model watch"),
    "other": ("English", "中文"),
    "not_a_device": ("未注册的医疗器械，不用于诊断。", "Not a registered medical device, not for diagnosis."),
    "period": ("时段（UTC，不含结束）", "Period (UTC, end not included)"),
    "reports": ("检查（每检查一份结果）", "Studies (one result each)"),
    "reach": ("范围", "Reach"),
    "everybody": ("全部机构", "every institution"),
    "reference": ("参照", "Reference"),
    "none": ("无", "none"),
    "fewer": ("少于下限，不显示", "fewer than the minimum, not shown"),
    "synthetic": ("含合成数据 SYNTHETIC", "holds SYNTHETIC data"),
    "outcome_alarm": ("报警：至少一项变化超过阈值且超出偶然", "Alarm: a change is large and more than chance"),
    "outcome_too-few": (
        "无法全部判断：数据太少、无参照或分组过小。这不等于没有变化",
        "Cannot tell everything: too few, no reference, or small cells. That is not “no change”",
    ),
    "outcome_steady": ("各项均可判断，未见超过阈值的变化", "Everything could be told; nothing passed its threshold"),
    "steady": ("稳定", "steady"),
    "alarm": ("报警", "alarm"),
    "too-few": ("太少，无法判断", "too few to tell"),
    "no-reference": ("无参照，无法判断", "no reference: cannot tell"),
    "suppressed": ("人数过少，不显示", "small cell, suppressed"),
    "overrides": ("医生改动率", "Overrides"),
    "overrides_about": (
        "已签发或退回的结果中，医生改动或退回的比例，95% Wilson 区间；虚线为总体。各组与其余检查作 Fisher 检验。",
        "Share of decided results that a person changed or took back, 95 % Wilson intervals; dashed: overall. "
        "Each group against all others by Fisher's test.",
    ),
    "group": ("分组", "Group"),
    "rate": ("改动率 (改动/已决定)", "Rate (changed / decided)"),
    "verdict": ("判断", "Verdict"),
    "all": ("总体", "overall"),
    "site": ("机构", "site"),
    "scanner": ("设备", "scanner"),
    "sex": ("性别", "sex"),
    "age": ("年龄", "age"),
    "female": ("女", "female"),
    "male": ("男", "male"),
    "other_sex": ("其他", "other"),
    "unknown": ("未知", "unknown"),
    "drift": ("得分分布", "Score distributions"),
    "drift_about": (
        "与发布时的参照比较。p 值由整名患者互换得到；“稳定”只表示可判断且未达阈值。",
        "Against the release's reference. p by exchanging whole patients; “steady” means that it could be told and no "
        "threshold was passed.",
    ),
    "window": ("本时段", "period"),
    "patients": ("患者", "patients"),
    "values": ("得分", "scores"),
    "left_out": ("未能计入", "Left out"),
    "findings-hidden": ("部分所见不可读", "a finding could not be read"),
    "no-patient": ("未注明患者", "no patient named"),
    "thresholds": ("阈值文件", "Thresholds"),
    "policy": (
        "阈值为 POLICY、UNVERIFIED。小组不显示；为防推算，必要时再隐去一组。",
        "Thresholds are POLICY, UNVERIFIED. Small cells are suppressed, and one more where the total would give one "
        "away.",
    ),
    "morphology": ("椎间盘形态（判定）", "disc morphology, as called"),
    "morphology-confidence": ("形态置信度", "confidence of morphology"),
    "grade": ("Pfirrmann 分级（判定）", "Pfirrmann grade, as called"),
    "grade-expected": ("Pfirrmann 期望值", "expected Pfirrmann grade"),
    "grade-confidence": ("分级置信度", "confidence of the grade"),
    "height-index": ("椎间隙高度指数", "disc height index"),
    "canal": ("椎管前后径 (mm)", "canal diameter (mm)"),
    "facet-angle": ("关节突关节角 (°)", "facet joint angle (°)"),
    "foramen-height": ("椎间孔高度 (mm)", "foramen height (mm)"),
    "foramen-width": ("椎间孔宽度 (mm)", "foramen width (mm)"),
    "foramen-area": ("椎间孔面积 (mm²)", "foramen area (mm²)"),
    "pedicle-width": ("椎弓根宽度 (mm)", "pedicle width (mm)"),
    "facet-tropism": ("关节突关节不对称 (°)", "facet tropism (°)"),
    "canal-width-bone": ("骨性椎管横径 (mm)", "bony canal width (mm)"),
    "canal-ap-bone": ("骨性椎管前后径 (mm)", "bony canal diameter (mm)"),
    "p": ("p", "p"),
}


def words(language: str) -> dict[str, Any]:
    """Words of the page in ``zh-CN`` or ``en-US``, names of classes among them."""
    place = 0 if language == "zh-CN" else 1
    found: dict[str, Any] = {key: pair[place] for key, pair in _WORDS.items()}
    for code in (*MORPHOLOGY.values(), *PFIRRMANN.values()):
        found[f"class {code.code}"] = code.display_zh if place == 0 else code.display
    # The whole name is too long for the margin of a chart.
    found["class herniation-unspecified"] = ("突出（未分型）", "Herniation")[place]
    return found
