// The conclusion is cut into lines by level and shown in one language; nothing else is touched.
import { initLanguage, listOf, ownLanguageLine, switchLanguage } from "@client/i18n";
import { conclusionText, detailsOf, segmentName } from "@apps/result_review/wording";
import { findingOf } from "@apps/result_review/findings";

const stored = new Map<string, string>();

beforeAll(async () => {
  Object.assign(globalThis, {
    localStorage: { getItem: (key: string) => stored.get(key) ?? null, setItem: (key: string, value: string) => stored.set(key, value) },
    document: { documentElement: {} },
  });
  await initLanguage();
});
beforeEach(() => switchLanguage("zh-CN"));

const CONTEXT = { model: () => "m 1", source: "T2", verifiedBy: undefined };
const BASE = "https://foramen.example/fhir/CodeSystem";
const observation = (extra: Partial<fhir4.Observation>): fhir4.Observation => ({
  resourceType: "Observation",
  status: "preliminary",
  code: { coding: [{ system: `${BASE}/finding`, code: "F01" }] },
  ...extra,
});

it("puts each level on a line of its own", async () => {
  const text = "L4-L5：膨出，DHI 0.31±0.04。L5-S1：正常。全片：无。\n\nL4-L5: Bulge, DHI 0.31±0.04. L5-S1: Normal. Study: none.";
  expect(conclusionText(text)).toBe("L4-L5：膨出，DHI 0.31±0.04。\nL5-S1：正常。\n全片：无。");
  await switchLanguage("en-US");
  expect(conclusionText(text)).toBe("L4-L5: Bulge, DHI 0.31±0.04.\nL5-S1: Normal.\nStudy: none.");
});

it("leaves alone what a clinician wrote in one language or in more lines", () => {
  expect(ownLanguageLine("两行中文\n第二行")).toBe("两行中文\n第二行");
  expect(ownLanguageLine("a\nb\nc")).toBe("a\nb\nc");
});

it("never shows an absent value as normal", () => {
  const details = detailsOf(findingOf(observation({ dataAbsentReason: { text: "需要轴位 T2" } })), CONTEXT);
  expect(details).toMatchObject({ absentReason: "需要轴位 T2", value: "" });
  expect(detailsOf(findingOf(observation({})), CONTEXT).absentReason).toBeTruthy();
});

it("says in the language of the screen alone why a value is absent", async () => {
  const reasons = [
    ["需要 CT needs CT", "需要 CT", "needs CT"],
    ["除矢状位 T2 外还需要矢状位 T1 图像 needs sagittal T1 as well as T2 images", "除矢状位 T2 外还需要矢状位 T1 图像", "needs sagittal T1 as well as T2 images"],
    ["各级概率均过低, 最高为 0.42, 未予分级 no grade is likely enough: the likeliest has probability 0.42", "各级概率均过低, 最高为 0.42, 未予分级", "no grade is likely enough: the likeliest has probability 0.42"],
    ["需要轴位 T2", "需要轴位 T2", "需要轴位 T2"],
  ];
  const said = () => reasons.map(([text = ""]) => detailsOf(findingOf(observation({ dataAbsentReason: { text } })), CONTEXT).absentReason);
  expect(said()).toEqual(reasons.map(([, zh]) => zh));
  const numbering = observation({ valueCodeableConcept: { text: "可靠 reliable" } });
  expect(detailsOf(findingOf(numbering), CONTEXT).value).toBe("可靠");
  await switchLanguage("en-US");
  expect(said()).toEqual(reasons.map(([, , en]) => en));
  expect(detailsOf(findingOf(numbering), CONTEXT).value).toBe("reliable");
});

it("marks what is not normal, and values that a person set", () => {
  const value = (code: string) => ({ valueCodeableConcept: { coding: [{ system: `${BASE}/morphology`, code }] } });
  expect(detailsOf(findingOf(observation(value("normal"))), CONTEXT).notable).toBe(false);
  const amended = detailsOf(findingOf(observation({ ...value("extrusion"), status: "amended" })), CONTEXT);
  expect(amended).toMatchObject({ value: "脱出", notable: true, byPerson: true });
});

it("names segments in the language of the screen, and leaves a label it does not know", async () => {
  expect(["L5 vertebral body", "T12 vertebral arch", "Dural sac"].map(segmentName)).toEqual(["L5 椎体", "T12 椎弓", "Dural sac"]);
  await switchLanguage("en-US");
  expect(segmentName("L5 vertebral body")).toBe("L5 vertebral body");
});

it("lists words with the comma of the language", async () => {
  expect(listOf(["移位", "椎体滑脱"])).toBe("移位、椎体滑脱");
  await switchLanguage("en-US");
  expect(listOf(["Migration", "Lordosis"])).toBe("Migration, Lordosis");
});
