// Observations become rows by level; what is absent stays absent.
import { generalFindings, levelRows, numberingConfident, observationsOf } from "@apps/result_review/findings";

const BASE = "https://foramen.example/fhir/CodeSystem";

function observation(id: string, code: string, level?: string, extra: Partial<fhir4.Observation> = {}): fhir4.Observation {
  return {
    resourceType: "Observation",
    id,
    status: "preliminary",
    code: { coding: [{ system: `${BASE}/finding`, code }] },
    ...(level ? { bodySite: { coding: [{ system: `${BASE}/level`, code: level }] } } : {}),
    ...extra,
  };
}

const component = (code: string, value: Partial<fhir4.ObservationComponent>): fhir4.ObservationComponent => ({
  code: { coding: [{ system: `${BASE}/component`, code }] },
  ...value,
});

it("orders levels caudal first and loses none, not even one without a name of ours", () => {
  const rows = levelRows([observation("1", "F01", "L1-L2"), observation("2", "F01", "T11-T12"), observation("3", "F01", "L5-S1"), observation("4", "F06", "L5-S1")]);
  expect(rows.map((row) => row.level)).toEqual(["L5-S1", "L1-L2", "T11-T12"]);
  expect([...(rows[0]?.findings.keys() ?? [])]).toEqual(["F01", "F06"]);
});

it("reads confidence as a share, uncertainty with its unit, and the segment", () => {
  const rows = levelRows([
    observation("1", "canal-ap", "L4-L5", {
      component: [
        component("confidence", { valueQuantity: { value: 87, unit: "%" } }),
        component("uncertainty", { valueQuantity: { value: 0.7, unit: "mm" } }),
        component("segment-number", { valueInteger: 5 }),
      ],
    }),
  ]);
  expect(rows[0]?.segmentNumber).toBe(5);
  expect(rows[0]?.findings.get("canal-ap")).toMatchObject({ confidence: 0.87, uncertainty: "± 0.7 mm" });
});

it("does not invent a segment or a confidence", () => {
  const [row] = levelRows([observation("1", "F01", "L4-L5")]);
  expect(row?.segmentNumber).toBeUndefined();
  expect(row?.findings.get("F01")?.confidence).toBeUndefined();
});

it("keeps findings about the whole study apart and tells whether the count is reliable", () => {
  const numbering = observation("1", "numbering", undefined, { component: [component("numbering-confident", { valueBoolean: false })] });
  expect(generalFindings([numbering, observation("2", "F01", "L4-L5")]).map((finding) => finding.code)).toEqual(["numbering"]);
  expect(numberingConfident([numbering])).toBe(false);
  expect(numberingConfident([])).toBeUndefined();
});

it("takes the observations of the report only, in its order", () => {
  const report: fhir4.DiagnosticReport = {
    resourceType: "DiagnosticReport",
    status: "partial",
    code: {},
    result: [{ reference: "Observation/2" }, { reference: "Observation/1" }],
  };
  const all = [observation("1", "F01"), observation("2", "F06"), observation("3", "F13")];
  expect(observationsOf(report, all).map((item) => item.id)).toEqual(["2", "1"]);
});
