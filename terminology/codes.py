"""Codes of our own code systems, with Chinese and English display. Sources: clinical model §1.1, §1.4, §3.1."""

from __future__ import annotations

from dataclasses import dataclass

from terminology import systems


@dataclass(frozen=True, slots=True)
class Code:
    """One coded meaning."""

    system: str
    code: str
    display: str
    display_zh: str

    def coding(self) -> dict[str, str]:
        """FHIR Coding."""
        return {"system": self.system, "code": self.code, "display": self.display}

    def concept(self) -> dict[str, object]:
        """FHIR CodeableConcept; the text is Chinese, as the first users are."""
        return {"coding": [self.coding()], "text": self.display_zh}


LEVELS = ("T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1")
"""Disc levels from cranial to caudal (clinical model §1.1)."""


def _finding(code: str, display: str, display_zh: str) -> Code:
    return Code(systems.FINDING, code, display, display_zh)


FINDINGS = {
    item.code: item
    for item in (
        _finding("F01", "Disc herniation morphology", "椎间盘突出形态"),
        _finding("F02", "Herniation zone", "突出分区"),
        _finding("F03", "Migration", "移位"),
        _finding("F04", "MSU size", "MSU 大小分级"),
        _finding("F05", "MSU zone", "MSU 分区"),
        _finding("F06", "Pfirrmann grade", "Pfirrmann 分级"),
        _finding("F07", "Modic change", "Modic 改变"),
        _finding("F08", "Canal stenosis (Schizas)", "椎管狭窄 Schizas 分级"),
        _finding("F09", "Canal stenosis (Lee)", "椎管狭窄 Lee 分级"),
        _finding("F10", "Foraminal stenosis (Lee)", "椎间孔狭窄 Lee 分级"),
        _finding("F11", "Root compression (Pfirrmann)", "神经根受压分级"),
        _finding("F12", "Spondylolisthesis", "椎体滑脱"),
        _finding("F13", "Disc height index", "椎间隙高度指数"),
        _finding("F14", "Herniation size", "突出大小"),
        _finding("F15", "Lordosis", "腰椎前凸"),
        _finding("F16", "PI-LL", "PI-LL"),
        _finding("F17", "Instability", "节段不稳"),
        _finding("F18", "Calcification", "钙化"),
        _finding("F19", "Iliac crest class", "髂嵴分型"),
        _finding("F20", "Interlaminar window", "椎板间窗"),
        _finding("F21", "Kambin inscribed circle", "Kambin 三角内切圆"),
        _finding("canal-ap", "Spinal canal anteroposterior diameter", "椎管前后径"),
        _finding("disc-narrowing", "Disc narrowing", "椎间隙狭窄"),
        *(
            _finding(f"{code}-{side}", f"{display}, {side}", f"{where}{zh}")
            for code, display, zh in (
                ("facet-angle", "Facet joint angle", "关节突关节角"),
                ("foramen-height", "Foramen height", "椎间孔高度"),
                ("foramen-width", "Foramen width", "椎间孔宽度"),
                ("foramen-area", "Foramen area", "椎间孔面积"),
                ("pedicle-width", "Pedicle width", "椎弓根宽度"),
            )
            for side, where in (("right", "右侧"), ("left", "左侧"))
        ),
        _finding("facet-tropism", "Facet tropism", "关节突关节不对称"),
        _finding("canal-ap-bone", "Bony canal anteroposterior diameter", "骨性椎管前后径"),
        _finding("canal-width-bone", "Bony canal width between the pedicles", "骨性椎管横径"),
        _finding("numbering", "Vertebral numbering", "椎体计数"),
        _finding("mr-ct-registration", "MR-CT registration", "MR–CT 配准"),
    )
}

MORPHOLOGY = {
    code: Code(systems.MORPHOLOGY, code, display, zh)
    for code, display, zh in (
        ("normal", "Normal", "正常"),
        ("bulge", "Bulge", "膨出"),
        ("herniation-unspecified", "Herniation, type not distinguished", "突出（未分型）"),
        ("protrusion", "Protrusion", "突出"),
        ("extrusion", "Extrusion", "脱出"),
        ("sequestration", "Sequestration", "游离"),
    )
}

PFIRRMANN = {
    str(number): Code(systems.PFIRRMANN, str(number), f"Pfirrmann {roman}", f"Pfirrmann {roman} 级")
    for number, roman in enumerate(("I", "II", "III", "IV", "V"), start=1)
}

OPTIONS = {
    code: Code(systems.OPTION, code, display, zh)
    for code, display, zh in (
        ("O01", "Conservative treatment", "保守治疗"),
        ("O02", "Transforaminal epidural steroid injection", "椎间孔硬膜外注射"),
        ("O03", "Intradiscal ablation", "髓核消融"),
        ("O04", "Microdiscectomy", "显微髓核摘除术"),
        ("O05", "Microendoscopic discectomy", "椎间盘镜髓核摘除术"),
        ("O06", "Transforaminal full-endoscopic discectomy", "经皮椎间孔镜髓核摘除术"),
        ("O07", "Interlaminar full-endoscopic discectomy", "经皮椎板间内镜髓核摘除术"),
        ("O08", "Unilateral biportal endoscopic discectomy", "单侧双通道内镜髓核摘除术"),
        ("O09", "Open fenestration discectomy", "开窗髓核摘除术"),
        ("O10", "Wide laminectomy", "椎板切除减压术"),
        ("O11", "Paraspinal (Wiltse) discectomy", "椎旁入路髓核摘除术"),
        ("O12", "Transforaminal lumbar interbody fusion", "经椎间孔腰椎融合术"),
        ("O13", "Oblique or lateral interbody fusion", "斜外侧腰椎融合术"),
    )
}

SYNTHETIC = Code(systems.TAG, "SYNTHETIC", "SYNTHETIC", "合成数据 SYNTHETIC")
AI_GENERATED = Code(systems.TAG, "AI-GENERATED", "AI-generated", "AI 生成")
MODEL_RECALLED = Code(systems.TAG, "MODEL-RECALLED", "Written by a recalled model", "所用模型已召回")
ANALYSE_STUDY = Code(systems.TASK_CODE, "analyse-study", "Analyse imaging study", "影像 AI 分析")
RECOMMEND_OPTIONS = Code(systems.TASK_CODE, "recommend-options", "Recommend treatment options", "治疗方案推荐")
ANNOTATE = Code(systems.TASK_CODE, "annotate", "Annotate a study for training", "标注检查供训练使用")
BATCH_PERFORMER = Code(systems.TASK_PERFORMER, "batch", "Batch, after all live work", "批处理（在全部实时任务之后）")


REGISTRATION_REASONS = {
    code: Code(systems.TASK_REASON, code, display, zh)
    for code, display, zh in (
        ("no-patient-id", "The images carry no Patient ID", "影像中没有患者 ID"),
        ("no-issuer", "The images do not say who issued their Patient ID", "影像未注明患者 ID 的签发机构"),
        (
            "no-patient-match",
            "No patient in the record has this Patient ID and issuer",
            "病历中没有与该患者 ID 和签发机构一致的患者",
        ),
        (
            "ambiguous-patient-match",
            "Several patients in the record have this Patient ID",
            "病历中有多名患者使用该患者 ID",
        ),
        ("conflicting-patient-id", "The series of the study name different patients", "同一检查的序列对应不同的患者"),
        ("superseded", "Newer images of the study replaced this request", "该检查已有新影像，本任务已被取代"),
        ("images-withdrawn", "No images of the study are left", "该检查已无影像"),
    )
}
"""Why a Task of stage 3 (register) waits or was replaced."""
