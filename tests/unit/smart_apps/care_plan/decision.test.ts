// Choosing, undoing and saving inputs: each one transaction, none without its reason.
import { choiceBundle, inputBundle, needsReason, revocationBundle } from "@apps/care_plan/decision";
import { optionOf } from "@apps/care_plan/options";

const BASE = "https://foramen.example/fhir";
const TAGS = ["AI-GENERATED", "SYNTHETIC"].map((code) => ({ system: `${BASE}/CodeSystem/tag`, code }));
const practitioner = { reference: "Practitioner/7", display: "Dr Wang" };
const recorded = "2026-11-22T08:00:00Z";

function optionPlan(verdict: string): fhir4.CarePlan {
  return {
    resourceType: "CarePlan",
    id: "o6",
    meta: { versionId: "1", tag: [...TAGS, { system: "urn:other", code: "x" }] },
    status: "draft",
    intent: "option",
    identifier: [{ system: "i", value: "v" }],
    category: [{ coding: [{ system: `${BASE}/CodeSystem/option`, code: "O06" }] }],
    title: "椎间孔镜",
    subject: { reference: "Patient/1" },
    supportingInfo: [{ reference: "DiagnosticReport/r" }],
    extension: [{ url: `${BASE}/StructureDefinition/option-verdict`, valueCode: verdict }],
  };
}

function choice(verdict = "eligible", change = {}) {
  return {
    option: optionOf(optionPlan(verdict)),
    title: " 椎间孔镜 L4-L5 ",
    description: "",
    level: "L4-L5",
    side: "left",
    note: "",
    reason: "",
    held: false,
    current: undefined,
    fullUrl: "urn:uuid:00000000-0000-4000-8000-000000000001",
    practitioner,
    recorded,
    ...change,
  };
}

describe("choosing an option", () => {
  it("writes a new plan based on the option and leaves the option as it is", () => {
    const bundle = choiceBundle(choice());
    expect(bundle.entry?.map((entry) => [entry.request?.method, entry.request?.url])).toEqual([
      ["POST", "CarePlan"],
      ["POST", "Provenance"],
    ]);
    const plan = bundle.entry?.[0]?.resource as fhir4.CarePlan;
    expect(plan).toMatchObject({
      status: "active",
      intent: "plan",
      title: "椎间孔镜 L4-L5",
      basedOn: [{ reference: "CarePlan/o6" }],
      author: practitioner,
      subject: { reference: "Patient/1" },
    });
    expect(plan.id).toBeUndefined();
    expect(plan.identifier).toBeUndefined();
    expect(plan.meta).toEqual({ tag: TAGS });
    expect(plan.extension?.map((item) => item.valueCode ?? item.valueCoding?.code)).toEqual(["L4-L5", "left"]);
  });

  it("signs the new plan by its urn:uuid, as the person who chose", () => {
    const bundle = choiceBundle(choice());
    const provenance = bundle.entry?.[1]?.resource as fhir4.Provenance;
    expect(provenance.target).toEqual([{ reference: bundle.entry?.[0]?.fullUrl }]);
    expect(provenance.agent[0]).toMatchObject({ who: practitioner, type: { coding: [{ code: "verifier" }] } });
    expect(provenance.entity?.[0]?.what.reference).toBe("CarePlan/o6/_history/1");
  });

  it("replaces the plan that is active, bound to its version", () => {
    const current = { ...optionPlan("eligible"), id: "p1", meta: { versionId: "4" }, status: "active" as const, intent: "plan" as const };
    const bundle = choiceBundle(choice("eligible", { current }));
    expect(bundle.entry?.[1]).toMatchObject({ request: { method: "PUT", url: "CarePlan/p1", ifMatch: 'W/"4"' }, resource: { status: "revoked" } });
    expect((bundle.entry?.[0]?.resource as fhir4.CarePlan).replaces).toEqual([{ reference: "CarePlan/p1" }]);
    expect((bundle.entry?.[2]?.resource as fhir4.Provenance).target).toHaveLength(2);
  });

  it.each(["relatively-contraindicated", "contraindicated", "not-assessable"])("wants a reason against the verdict %s", (verdict) => {
    expect(() => choiceBundle(choice(verdict))).toThrow(/reason/);
    const provenance = choiceBundle(choice(verdict, { reason: "patient's wish" })).entry?.[1]?.resource as fhir4.Provenance;
    expect(provenance.reason).toEqual([{ text: "patient's wish" }]);
  });

  it("wants a reason while a hold stands, even for an eligible option", () => {
    expect(needsReason(optionOf(optionPlan("eligible")), true, "L4-L5")).toBe(true);
    expect(() => choiceBundle(choice("eligible", { held: true }))).toThrow(/reason/);
  });

  it("wants a reason for a level that the rules did not look at", () => {
    const evaluated = optionOf({ ...optionPlan("eligible"), title: "L5-S1 椎间孔镜" });
    expect(() => choiceBundle(choice("eligible", { option: evaluated }))).toThrow(/reason/);
    expect(choiceBundle(choice("eligible", { option: evaluated, level: "L5-S1", title: "椎间孔镜" })).entry).toHaveLength(2);
  });

  it("wants a reason while the vertebrae are not counted reliably (R18)", () => {
    const url = `${BASE}/StructureDefinition/rule-verdict`;
    const withRule = (stance: string) => {
      const plan = optionPlan("eligible");
      const rule = { url, extension: [{ url: "rule", valueCode: "R18" }, { url: "stance", valueCode: stance }] };
      return optionOf({ ...plan, extension: [...(plan.extension ?? []), rule] });
    };
    expect(needsReason(withRule("note"), false, "L4-L5")).toBe(true);
    expect(needsReason(withRule("against"), false, "L4-L5")).toBe(true);
    expect(needsReason(withRule("open"), false, "L4-L5")).toBe(false);
    expect(() => choiceBundle(choice("eligible", { option: withRule("note") }))).toThrow(/reason/);
  });

  it("refuses a title that names another level than the plan", () => {
    expect(() => choiceBundle(choice("eligible", { title: "L5-S1 椎间孔镜" }))).toThrow(/title names L5-S1/);
  });

  it.each([{ title: " " }, { level: "" }, { level: "L9" }, { side: "" }])("never guesses %o", (change) => {
    expect(() => choiceBundle(choice("eligible", change))).toThrow(/needs a/);
  });
});

describe("undoing", () => {
  it("revokes the plan with a reason and the version it was read in", () => {
    const plan = { ...optionPlan("eligible"), id: "p1", status: "active" as const };
    const bundle = revocationBundle({ plan, reason: "patient declined", practitioner, recorded });
    expect(bundle.entry?.[0]).toMatchObject({ resource: { status: "revoked" }, request: { ifMatch: 'W/"1"' } });
    expect((bundle.entry?.[1]?.resource as fhir4.Provenance).activity?.coding?.[0]?.code).toBe("revoke");
    expect(() => revocationBundle({ plan, reason: "", practitioner, recorded })).toThrow(/reason/);
  });
});

describe("saving clinical inputs", () => {
  it("keeps the answers and asks for fresh options in one transaction", () => {
    const fullUrl = "urn:uuid:00000000-0000-4000-8000-000000000002";
    const answers = { "redflag.ces": false, "exam.motor": 4, side: "left", duration_weeks: 7.5, index_level: "L4-L5" };
    const bundle = inputBundle({ patientId: "1", reportId: "r", answers, synthetic: [], fullUrl, practitioner, recorded });
    const response = bundle.entry?.[0]?.resource as fhir4.QuestionnaireResponse;
    expect(response.questionnaire).toBe(`${BASE}/Questionnaire/ldh-intake`);
    expect(Object.fromEntries((response.item ?? []).map((item) => [item.linkId, item.answer?.[0]]))).toEqual({
      "redflag.ces": { valueBoolean: false },
      "exam.motor": { valueInteger: 4 },
      side: { valueCoding: { code: "left", display: "left" } },
      duration_weeks: { valueDecimal: 7.5 },
      index_level: { valueCoding: { system: `${BASE}/CodeSystem/level`, code: "L4-L5", display: "L4-L5" } },
    });
    expect(bundle.entry?.[1]?.resource).toMatchObject({
      resourceType: "Task",
      status: "requested",
      code: { coding: [{ code: "recommend-options" }] },
      focus: { reference: "DiagnosticReport/r" },
      for: { reference: "Patient/1" },
      input: [{ valueReference: { reference: fullUrl } }],
    });
  });
});
