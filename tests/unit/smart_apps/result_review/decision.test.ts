// A clinician's decision is one transaction: statuses, versions, Provenance.
import { type Decision, decisionBundle } from "@apps/result_review/decision";

const TAG = "https://foramen.example/fhir/CodeSystem/tag";
const META = { versionId: "3", tag: [{ system: TAG, code: "AI-GENERATED" }, { system: TAG, code: "SYNTHETIC" }] };

function observation(id: string, status: fhir4.Observation["status"] = "preliminary"): fhir4.Observation {
  return {
    resourceType: "Observation",
    id,
    meta: { ...META, versionId: "1" },
    status,
    code: { text: "morphology" },
    valueCodeableConcept: { coding: [{ system: "s", code: "protrusion" }] },
    component: [
      { code: { coding: [{ system: "https://foramen.example/fhir/CodeSystem/component", code: "confidence" }] }, valueQuantity: { value: 0.8 } },
      { code: { coding: [{ system: "https://foramen.example/fhir/CodeSystem/component", code: "segment-number" }] }, valueInteger: 4 },
    ],
  };
}

function decision(change: Partial<Decision> = {}): Decision {
  return {
    kind: "verify",
    report: { resourceType: "DiagnosticReport", id: "r", meta: META, status: "partial", code: { text: "MR" }, subject: { reference: "Patient/1" }, conclusion: "AI text" },
    observations: [observation("a"), observation("b")],
    reason: "",
    practitioner: { reference: "Practitioner/7", display: "Dr Wang" },
    recorded: "2026-11-22T08:00:00Z",
    ...change,
  };
}

function resources(bundle: fhir4.Bundle): Record<string, fhir4.FhirResource> {
  return Object.fromEntries((bundle.entry ?? []).map((entry) => [entry.request?.url ?? "", entry.resource as fhir4.FhirResource]));
}

describe("verify", () => {
  it("makes report and observations final, each bound to the version that was read", () => {
    const bundle = decisionBundle(decision());
    expect(bundle.type).toBe("transaction");
    const asked = bundle.entry?.map((entry) => [entry.request?.method, entry.request?.url, entry.request?.ifMatch]);
    expect(asked).toEqual([
      ["PUT", "DiagnosticReport/r", 'W/"3"'],
      ["PUT", "Observation/a", 'W/"1"'],
      ["PUT", "Observation/b", 'W/"1"'],
      ["POST", "Provenance", undefined],
      ["POST", "Task", undefined],
    ]);
    const written = resources(bundle);
    expect(written["DiagnosticReport/r"]).toMatchObject({ status: "final", meta: META, resultsInterpreter: [{ reference: "Practitioner/7" }] });
    expect(written["Observation/a"]).toMatchObject({ status: "final", valueCodeableConcept: { coding: [{ code: "protrusion" }] } });
  });

  it("names the practitioner as verifier of every changed resource and keeps the judged versions", () => {
    const provenance = resources(decisionBundle(decision({ reason: " looks right " })))["Provenance"] as fhir4.Provenance;
    expect(provenance.target.map((target) => target.reference)).toEqual(["DiagnosticReport/r", "Observation/a", "Observation/b"]);
    expect(provenance.agent[0]?.type?.coding?.[0]?.code).toBe("verifier");
    expect(provenance.agent[0]?.who.reference).toBe("Practitioner/7");
    expect(provenance.activity?.coding?.[0]?.code).toBe("verify");
    expect(provenance.reason).toEqual([{ text: "looks right" }]);
    expect(provenance.entity?.map((entity) => entity.what.reference)).toContain("Observation/a/_history/1");
    expect(provenance.meta?.tag?.map((tag) => tag.code)).toEqual(["SYNTHETIC"]);
  });

  it("leaves alone what a clinician settled before", () => {
    const written = resources(decisionBundle(decision({ observations: [observation("a", "amended"), observation("b")] })));
    expect(Object.keys(written)).not.toContain("Observation/a");
    expect(written["Observation/b"]).toMatchObject({ status: "final" });
  });

  it.each(["cancelled", "entered-in-error"] as const)("leaves an observation alone that is %s", (status) => {
    const written = resources(decisionBundle(decision({ observations: [observation("a", status), observation("b")] })));
    expect(Object.keys(written)).not.toContain("Observation/a");
    expect(written["Observation/b"]).toMatchObject({ status: "final" });
  });

  it.each(["cancelled", "entered-in-error"] as const)("refuses a report that is %s, whatever the decision", (status) => {
    const report = { ...decision().report, status };
    for (const kind of ["verify", "amend", "reject"] as const) {
      expect(() => decisionBundle(decision({ kind, report, reason: "why" }))).toThrow(/superseded/);
    }
  });

  it("asks for fresh options on the signed findings", () => {
    expect(resources(decisionBundle(decision()))["Task"]).toMatchObject({
      meta: { tag: [{ code: "SYNTHETIC" }] },
      status: "requested",
      code: { coding: [{ code: "recommend-options" }] },
      focus: { reference: "DiagnosticReport/r" },
      for: { reference: "Patient/1" },
      requester: { reference: "Practitioner/7" },
    });
  });

  it("refuses a resource without a version, which could overwrite somebody's work", () => {
    const { meta: _, ...report } = decision().report;
    expect(() => decisionBundle(decision({ report: { ...report, resourceType: "DiagnosticReport" } }))).toThrow(/version/);
  });
});

describe("amend", () => {
  const amendments = [{ observationId: "a", coding: { system: "s", code: "extrusion" }, text: "脱出" }];

  it("changes the value, drops the model's confidence and keeps the link to the segment", () => {
    const written = resources(decisionBundle(decision({ kind: "amend", amendments, reason: "neck narrower than dome", conclusion: "new" })));
    const changed = written["Observation/a"] as fhir4.Observation;
    expect(changed.status).toBe("amended");
    expect(changed.valueCodeableConcept).toEqual({ coding: [{ system: "s", code: "extrusion" }], text: "脱出" });
    expect(changed.component?.map((item) => item.code.coding?.[0]?.code)).toEqual(["segment-number"]);
    expect(written["Observation/b"]).toMatchObject({ status: "final" });
    expect(written["DiagnosticReport/r"]).toMatchObject({ status: "amended", conclusion: "new" });
  });

  it("says that a person set the value: no method of the model, no expected value, the person as performer", () => {
    const expected = { code: { coding: [{ system: "https://foramen.example/fhir/CodeSystem/component", code: "expected" }] }, valueQuantity: { value: 2.1 } };
    const before = { ...observation("a"), method: { text: "network" } };
    before.component = [...(before.component ?? []), expected];
    const written = resources(decisionBundle(decision({ kind: "amend", observations: [before, observation("b")], amendments, reason: "why" })));
    const changed = written["Observation/a"] as fhir4.Observation;
    expect(changed).not.toHaveProperty("method");
    expect(changed.component?.map((item) => item.code.coding?.[0]?.code)).toEqual(["segment-number"]);
    expect(changed.performer).toEqual([{ reference: "Practitioner/7", display: "Dr Wang" }]);
    expect(written["Observation/b"]).not.toHaveProperty("performer");
  });

  it("does not revive an observation that was superseded", () => {
    const observations = [observation("a", "cancelled")];
    expect(() => decisionBundle(decision({ kind: "amend", observations, amendments, reason: "why" }))).toThrow(/cannot be amended/);
  });

  it("gives a value to what the model could not assess", () => {
    const { valueCodeableConcept: _, ...bare } = observation("a");
    const absent = { ...bare, resourceType: "Observation" as const, dataAbsentReason: { text: "no axial series" } };
    const written = resources(decisionBundle(decision({ kind: "amend", observations: [absent], amendments, reason: "seen on CT" })));
    expect(written["Observation/a"]).not.toHaveProperty("dataAbsentReason");
  });

  it("needs a reason, and observations of this report", () => {
    expect(() => decisionBundle(decision({ kind: "amend", amendments, reason: "  " }))).toThrow(/reason/);
    const stranger = [{ observationId: "x", coding: { code: "bulge" }, text: "" }];
    expect(() => decisionBundle(decision({ kind: "amend", amendments: stranger, reason: "why" }))).toThrow(/not part/);
  });
});

describe("reject", () => {
  it("marks everything as entered in error and says why", () => {
    const written = resources(decisionBundle(decision({ kind: "reject", reason: "wrong numbering", observations: [observation("a", "final")] })));
    expect(written["DiagnosticReport/r"]).toMatchObject({ status: "entered-in-error" });
    expect(written["DiagnosticReport/r"]).not.toHaveProperty("resultsInterpreter");
    expect(written).not.toHaveProperty("Task");
    expect(written["Observation/a"]).toMatchObject({ status: "entered-in-error" });
    expect(() => decisionBundle(decision({ kind: "reject" }))).toThrow(/reason/);
  });
});
