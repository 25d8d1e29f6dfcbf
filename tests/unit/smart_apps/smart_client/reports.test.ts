// Reports follow the examination, then the analysis; closed ones are never the newest.
import { isClosed, newestOpen, sortReports } from "@client/reports";

function report(id: string, effectiveDateTime: string, issued: string, status: fhir4.DiagnosticReport["status"] = "partial"): fhir4.DiagnosticReport {
  return { resourceType: "DiagnosticReport", id, status, code: {}, effectiveDateTime, issued };
}

const old = report("old-exam-analysed-late", "2026-01-01T08:00:00Z", "2026-11-01T08:00:00Z");
const first = report("first-analysis", "2026-06-01T08:00:00Z", "2026-06-02T08:00:00Z");
const second = report("second-analysis", "2026-06-01T08:00:00Z", "2026-06-03T08:00:00Z");

it("puts the newest examination first, then the newest analysis", () => {
  expect(sortReports([old, first, second]).map(({ id }) => id)).toEqual(["second-analysis", "first-analysis", "old-exam-analysed-late"]);
});

it("falls back to the analysis time where the examination time is unknown", () => {
  const { effectiveDateTime: _, ...bare } = report("bare", "", "2026-07-01T08:00:00Z");
  expect(sortReports([first, bare]).map(({ id }) => id)).toEqual(["bare", "first-analysis"]);
});

it("never takes a superseded or rejected report for the newest", () => {
  const closed = (["cancelled", "entered-in-error"] as const).map((status) => ({ ...second, status }));
  expect(closed.every(isClosed)).toBe(true);
  expect(newestOpen([...closed, first])?.id).toBe("first-analysis");
  expect(newestOpen(closed)).toBeUndefined();
});
