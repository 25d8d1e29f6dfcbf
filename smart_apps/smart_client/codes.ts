/**
 * Canonical URIs and codes the apps read and write. The source is terminology/systems.py and terminology/codes.py;
 * tests/unit/smart_apps/test_codes.py fails when a value here differs.
 */
export const BASE = "https://foramen.example/fhir";

export const SYSTEM = {
  FINDING: `${BASE}/CodeSystem/finding`,
  MORPHOLOGY: `${BASE}/CodeSystem/morphology`,
  PFIRRMANN: `${BASE}/CodeSystem/pfirrmann`,
  LEVEL: `${BASE}/CodeSystem/level`,
  OPTION: `${BASE}/CodeSystem/option`,
  TAG: `${BASE}/CodeSystem/tag`,
  TASK_CODE: `${BASE}/CodeSystem/task-code`,
  TASK_REASON: `${BASE}/CodeSystem/task-reason`,
  COMPONENT: `${BASE}/CodeSystem/component`,
  DECISION: `${BASE}/CodeSystem/decision`,
  IDENTIFIER_PATIENT: `${BASE}/identifier/patient`,
  EXTENSION_RULES: `${BASE}/StructureDefinition/rule-verdict`,
  EXTENSION_VERDICT: `${BASE}/StructureDefinition/option-verdict`,
  EXTENSION_SEGMENTATION: `${BASE}/StructureDefinition/segmentation-series`,
  EXTENSION_SOURCE_SERIES: `${BASE}/StructureDefinition/source-series`,
  EXTENSION_KEY_IMAGES: `${BASE}/StructureDefinition/key-image-series`,
  EXTENSION_MISSING_INPUT: `${BASE}/StructureDefinition/missing-input`,
  EXTENSION_HOLD: `${BASE}/StructureDefinition/hold`,
  EXTENSION_FIGURE: `${BASE}/StructureDefinition/published-figure`,
  EXTENSION_PLAN_LEVEL: `${BASE}/StructureDefinition/planned-level`,
  EXTENSION_PLAN_SIDE: `${BASE}/StructureDefinition/planned-side`,
  INTAKE_QUESTIONNAIRE: `${BASE}/Questionnaire/ldh-intake`,
  DICOM_UID: "urn:dicom:uid",
  PROVENANCE_AGENT: "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
} as const;

export const SYNTHETIC = "SYNTHETIC";
export const AI_GENERATED = "AI-GENERATED";
export const MODEL_RECALLED = "MODEL-RECALLED";
export const ANALYSE_STUDY = "analyse-study";
export const RECOMMEND_OPTIONS = "recommend-options";

/** Disc levels, caudal to cranial: the order in which a surgeon reads them. */
export const LEVELS = ["L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1"] as const;

export interface Display {
  display: string;
  zh: string;
}

export const MORPHOLOGY: Record<string, Display> = {
  normal: { display: "Normal", zh: "正常" },
  bulge: { display: "Bulge", zh: "膨出" },
  "herniation-unspecified": { display: "Herniation, type not distinguished", zh: "突出（未分型）" },
  protrusion: { display: "Protrusion", zh: "突出" },
  extrusion: { display: "Extrusion", zh: "脱出" },
  sequestration: { display: "Sequestration", zh: "游离" },
};

export const PFIRRMANN: Record<string, Display> = {
  "1": { display: "Pfirrmann I", zh: "Pfirrmann I 级" },
  "2": { display: "Pfirrmann II", zh: "Pfirrmann II 级" },
  "3": { display: "Pfirrmann III", zh: "Pfirrmann III 级" },
  "4": { display: "Pfirrmann IV", zh: "Pfirrmann IV 级" },
  "5": { display: "Pfirrmann V", zh: "Pfirrmann V 级" },
};

export const OPTIONS: Record<string, Display> = {
  O01: { display: "Conservative treatment", zh: "保守治疗" },
  O02: { display: "Transforaminal epidural steroid injection", zh: "椎间孔硬膜外注射" },
  O03: { display: "Intradiscal ablation", zh: "髓核消融" },
  O04: { display: "Microdiscectomy", zh: "显微髓核摘除术" },
  O05: { display: "Microendoscopic discectomy", zh: "椎间盘镜髓核摘除术" },
  O06: { display: "Transforaminal full-endoscopic discectomy", zh: "经皮椎间孔镜髓核摘除术" },
  O07: { display: "Interlaminar full-endoscopic discectomy", zh: "经皮椎板间内镜髓核摘除术" },
  O08: { display: "Unilateral biportal endoscopic discectomy", zh: "单侧双通道内镜髓核摘除术" },
  O09: { display: "Open fenestration discectomy", zh: "开窗髓核摘除术" },
  O10: { display: "Wide laminectomy", zh: "椎板切除减压术" },
  O11: { display: "Paraspinal (Wiltse) discectomy", zh: "椎旁入路髓核摘除术" },
  O12: { display: "Transforaminal lumbar interbody fusion", zh: "经椎间孔腰椎融合术" },
  O13: { display: "Oblique or lateral interbody fusion", zh: "斜外侧腰椎融合术" },
};

export const FINDINGS: Record<string, Display> = {
  F01: { display: "Disc herniation morphology", zh: "椎间盘突出形态" },
  F02: { display: "Herniation zone", zh: "突出分区" },
  F03: { display: "Migration", zh: "移位" },
  F04: { display: "MSU size", zh: "MSU 大小分级" },
  F05: { display: "MSU zone", zh: "MSU 分区" },
  F06: { display: "Pfirrmann grade", zh: "Pfirrmann 分级" },
  F07: { display: "Modic change", zh: "Modic 改变" },
  F08: { display: "Canal stenosis (Schizas)", zh: "椎管狭窄 Schizas 分级" },
  F09: { display: "Canal stenosis (Lee)", zh: "椎管狭窄 Lee 分级" },
  F10: { display: "Foraminal stenosis (Lee)", zh: "椎间孔狭窄 Lee 分级" },
  F11: { display: "Root compression (Pfirrmann)", zh: "神经根受压分级" },
  F12: { display: "Spondylolisthesis", zh: "椎体滑脱" },
  F13: { display: "Disc height index", zh: "椎间隙高度指数" },
  F14: { display: "Herniation size", zh: "突出大小" },
  F15: { display: "Lordosis", zh: "腰椎前凸" },
  F16: { display: "PI-LL", zh: "PI-LL" },
  F17: { display: "Instability", zh: "节段不稳" },
  F18: { display: "Calcification", zh: "钙化" },
  F19: { display: "Iliac crest class", zh: "髂嵴分型" },
  F20: { display: "Interlaminar window", zh: "椎板间窗" },
  F21: { display: "Kambin inscribed circle", zh: "Kambin 三角内切圆" },
  "canal-ap": { display: "Spinal canal anteroposterior diameter", zh: "椎管前后径" },
  "disc-narrowing": { display: "Disc narrowing", zh: "椎间隙狭窄" },
  numbering: { display: "Vertebral numbering", zh: "椎体计数" },
  "mr-ct-registration": { display: "MR-CT registration", zh: "MR–CT 配准" },
  "facet-angle-right": { display: "Facet joint angle, right", zh: "右侧关节突关节角" },
  "facet-angle-left": { display: "Facet joint angle, left", zh: "左侧关节突关节角" },
  "foramen-height-right": { display: "Foramen height, right", zh: "右侧椎间孔高度" },
  "foramen-height-left": { display: "Foramen height, left", zh: "左侧椎间孔高度" },
  "foramen-width-right": { display: "Foramen width, right", zh: "右侧椎间孔宽度" },
  "foramen-width-left": { display: "Foramen width, left", zh: "左侧椎间孔宽度" },
  "foramen-area-right": { display: "Foramen area, right", zh: "右侧椎间孔面积" },
  "foramen-area-left": { display: "Foramen area, left", zh: "左侧椎间孔面积" },
  "pedicle-width-right": { display: "Pedicle width, right", zh: "右侧椎弓根宽度" },
  "pedicle-width-left": { display: "Pedicle width, left", zh: "左侧椎弓根宽度" },
  "facet-tropism": { display: "Facet tropism", zh: "关节突关节不对称" },
  "canal-ap-bone": { display: "Bony canal anteroposterior diameter", zh: "骨性椎管前后径" },
  "canal-width-bone": { display: "Bony canal width between the pedicles", zh: "骨性椎管横径" },
};
