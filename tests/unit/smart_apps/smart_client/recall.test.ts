// Who recalled the model behind a result, when and why.
import { MODEL_RECALLED, SYSTEM } from "@client/codes";
import { recallOf } from "@client/recall";

const statement = (extra: Partial<fhir4.Provenance>): fhir4.Provenance => ({
  resourceType: "Provenance",
  target: [{ reference: "DiagnosticReport/r" }],
  recorded: "2026-11-23T10:00:00Z",
  activity: { coding: [{ system: SYSTEM.TAG, code: MODEL_RECALLED }] },
  reason: [{ text: "grades too high" }],
  agent: [{ who: { display: "dr-li" } }],
  ...extra,
});
const written: fhir4.Provenance = { ...statement({}), activity: { text: "lumbar_mr 0.4.0" }, agent: [{ who: { reference: "Device/d" } }] };
const unstated = { who: undefined, when: undefined, why: undefined };

it("reads the statement of the recall and no other Provenance", () => {
  expect(recallOf([written, statement({})], "DiagnosticReport/r")).toEqual({ who: "dr-li", when: "2026-11-23T10:00:00Z", why: "grades too high" });
});

it("takes the first statement, and only one that names the resource", () => {
  const later = statement({ recorded: "2026-11-24T10:00:00Z", agent: [{ who: { display: "dr-wu" } }] });
  expect(recallOf([later, statement({})], "DiagnosticReport/r").who).toBe("dr-li");
  expect(recallOf([statement({})], "DiagnosticReport/other")).toEqual(unstated);
});

it("says nothing that was not written", () => {
  expect(recallOf([written], "DiagnosticReport/r")).toEqual(unstated);
  expect(recallOf([statement({ agent: [{ who: { reference: "Practitioner/p" } }], reason: [] })], "DiagnosticReport/r")).toEqual({
    who: "Practitioner/p",
    when: "2026-11-23T10:00:00Z",
    why: undefined,
  });
});
