/** AI reports in order, and which of them still count. Pure. */

/** Replaced by a newer analysis, or withdrawn: nobody signs it and nothing is chosen from it. */
export function isClosed(resource: { status: string }): boolean {
  return resource.status === "cancelled" || resource.status === "entered-in-error";
}

function instant(...candidates: (string | undefined)[]): number {
  return Date.parse(candidates.find((value) => value !== undefined) ?? "") || 0;
}

/** Newest examination first; of one examination the newest analysis first. */
export function sortReports(reports: fhir4.DiagnosticReport[]): fhir4.DiagnosticReport[] {
  const examined = (report: fhir4.DiagnosticReport) => instant(report.effectiveDateTime, report.issued, report.meta?.lastUpdated);
  const analysed = (report: fhir4.DiagnosticReport) => instant(report.issued, report.meta?.lastUpdated);
  return [...reports].sort((a, b) => examined(b) - examined(a) || analysed(b) - analysed(a));
}

/** The first report in the order of `sortReports` that still counts. */
export function newestOpen(sorted: fhir4.DiagnosticReport[]): fhir4.DiagnosticReport | undefined {
  return sorted.find((report) => !isClosed(report));
}
