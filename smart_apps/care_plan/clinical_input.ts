/**
 * The clinical facts the rules ask about, as a form and as a QuestionnaireResponse. Unanswered stays unanswered: never false.
 * Names, types and values are those of ai_services/recommendation/facts.yaml (tests/unit/smart_apps/test_codes.py compares).
 * Clinical model §2, §3.4
 */
import { type Display, LEVELS, SYSTEM } from "@client/codes";

export type FactValue = boolean | number | string;
export type Answers = Record<string, FactValue>;

export type Fact = Display & { id: string } & (
    | { type: "boolean" }
    | { type: "integer"; minimum: number; maximum?: number }
    | { type: "decimal"; minimum: number; maximum?: number }
    | { type: "code"; values: Record<string, Display> }
  );

export interface FactGroup extends Display {
  id: string;
  facts: Fact[];
}

const yesNo = (id: string, zh: string, display: string): Fact => ({ id, zh, display, type: "boolean" });
const code = (id: string, zh: string, display: string, values: Record<string, Display>): Fact => ({ id, zh, display, type: "code", values });
const whole = (id: string, zh: string, display: string, minimum: number, maximum: number): Fact => ({
  id,
  zh,
  display,
  type: "integer",
  minimum,
  maximum,
});
const decimal = (id: string, zh: string, display: string): Fact => ({ id, zh, display, type: "decimal", minimum: 0 });

export const SIDES: Record<string, Display> = {
  left: { zh: "左侧", display: "left" },
  right: { zh: "右侧", display: "right" },
  bilateral: { zh: "双侧", display: "bilateral" },
  alternating: { zh: "交替", display: "alternating" },
};

const LEVEL_VALUES = Object.fromEntries(LEVELS.map((level) => [level, { zh: level, display: level }]));

/** Red flags first: they decide whether anything else may be ranked (rules R01 to R03). */
export const GROUPS: FactGroup[] = [
  {
    id: "redflags",
    zh: "红旗征（必问）",
    display: "Red flags (must be asked)",
    facts: [
      yesNo("redflag.ces", "马尾综合征征象", "signs of cauda equina syndrome"),
      code("redflag.other", "其他红旗征", "other red flag", {
        none: { zh: "无", display: "none" },
        tumour: { zh: "肿瘤", display: "tumour" },
        infection: { zh: "感染", display: "infection" },
        fracture: { zh: "骨折", display: "fracture" },
      }),
      yesNo("motor.progressive", "肌力进行性下降", "progressive motor deficit"),
    ],
  },
  {
    id: "exam",
    zh: "定位与查体",
    display: "Localisation and examination",
    facts: [
      code("index_level", "责任节段", "index level", LEVEL_VALUES),
      code("side", "症状侧别", "symptomatic side", SIDES),
      whole("exam.motor", "关键肌肌力 (MRC 0–5)", "key muscle strength (MRC 0–5)", 0, 5),
      yesNo("concord", "影像与临床是否一致", "image matches the clinical picture"),
    ],
  },
  {
    id: "course",
    zh: "疼痛与病程",
    display: "Pain and course",
    facts: [
      whole("pain.leg_nrs", "腿痛 NRS (0–10)", "leg pain NRS (0–10)", 0, 10),
      whole("pain.back_nrs", "腰痛 NRS (0–10)", "back pain NRS (0–10)", 0, 10),
      code("pain.dominant", "疼痛以腿或腰为主", "dominant pain", {
        leg: { zh: "腿", display: "leg" },
        back: { zh: "腰", display: "back" },
        equal: { zh: "相当", display: "equal" },
      }),
      yesNo("severe_uncontrolled_pain", "难以控制的剧痛", "severe uncontrolled pain"),
      decimal("duration_weeks", "病程（周）", "duration of symptoms (weeks)"),
      decimal("conservative.weeks", "保守治疗时间（周）", "conservative treatment (weeks)"),
      yesNo("conservative.failed", "保守治疗是否无效", "conservative treatment failed"),
    ],
  },
  {
    id: "background",
    zh: "背景与合并症",
    display: "Background and comorbidity",
    facts: [
      yesNo("recurrent", "同节段复发", "recurrent herniation at the same level"),
      yesNo("instability", "节段不稳", "segmental instability"),
      yesNo("chronic_lbp", "慢性腰痛", "chronic low back pain"),
      yesNo("heavy_labour", "重体力劳动", "heavy manual work"),
      whole("asa", "ASA 分级", "ASA class", 1, 6),
      yesNo("coagulopathy", "未纠正的凝血异常或抗凝治疗", "uncorrected coagulopathy or anticoagulation"),
      yesNo("infection.active", "局部或全身活动性感染", "active local or systemic infection"),
      yesNo("pregnancy", "妊娠", "pregnancy"),
      yesNo("smoker", "吸烟", "smoker"),
      yesNo("diabetes", "糖尿病", "diabetes"),
      yesNo("osteoporosis.untreated", "未治疗的骨质疏松 (T≤−2.5)", "untreated osteoporosis (T ≤ −2.5)"),
    ],
  },
];

export const FACTS: Record<string, Fact> = Object.fromEntries(GROUPS.flatMap((group) => group.facts.map((fact) => [fact.id, fact])));

function answerOf(fact: Fact, value: FactValue): fhir4.QuestionnaireResponseItemAnswer {
  if (fact.type === "boolean") return { valueBoolean: value === true };
  if (fact.type === "integer") return { valueInteger: Number(value) };
  if (fact.type === "decimal") return { valueDecimal: Number(value) };
  const text = String(value);
  const display = fact.values[text]?.display;
  const coding: fhir4.Coding = { code: text, ...(display ? { display } : {}) };
  return { valueCoding: fact.id === "index_level" ? { system: SYSTEM.LEVEL, ...coding } : coding };
}

/** One item per answered fact, in the order of the form. */
export function itemsOf(answers: Answers): fhir4.QuestionnaireResponseItem[] {
  return Object.values(FACTS).flatMap((fact) => {
    const value = answers[fact.id];
    return value === undefined ? [] : [{ linkId: fact.id, text: fact.zh, answer: [answerOf(fact, value)] }];
  });
}

function valueOf(answer: fhir4.QuestionnaireResponseItemAnswer | undefined): FactValue | undefined {
  if (!answer) return undefined;
  return answer.valueBoolean ?? answer.valueInteger ?? answer.valueDecimal ?? answer.valueCoding?.code ?? answer.valueString;
}

/** Answers of a saved response; items we do not know stay out. */
export function answersOf(response: fhir4.QuestionnaireResponse | undefined): Answers {
  const answers: Answers = {};
  for (const item of response?.item ?? []) {
    const value = valueOf(item.answer?.[0]);
    if (FACTS[item.linkId] && value !== undefined) answers[item.linkId] = value;
  }
  return answers;
}

/** The newest response that was completed; drafts and withdrawn ones do not count. */
export function latestResponse(responses: fhir4.QuestionnaireResponse[]): fhir4.QuestionnaireResponse | undefined {
  const time = (response: fhir4.QuestionnaireResponse) => Date.parse(response.authored ?? response.meta?.lastUpdated ?? "") || 0;
  return responses.filter(({ status }) => status === "completed" || status === "amended").sort((a, b) => time(b) - time(a))[0];
}

/** How long an answer about a red flag may be taken over into the form: it has to be asked anew after that. */
export const RED_FLAG_DAYS = 14;
const DAY_MS = 86_400_000;

/** Answers the form starts with, and whether old red flag answers were left out. A response without a time counts as old. */
export function prefillOf(response: fhir4.QuestionnaireResponse | undefined, now: number = Date.now()): { answers: Answers; stale: boolean } {
  const answers = answersOf(response);
  const authored = Date.parse(response?.authored ?? "");
  if (now - authored <= RED_FLAG_DAYS * DAY_MS) return { answers, stale: false };
  const kept = Object.entries(answers).filter(([id]) => !id.startsWith("redflag."));
  return { answers: Object.fromEntries(kept), stale: kept.length < Object.keys(answers).length };
}
