/** Reads what one review needs from the record, for the launch patient only. */
import { SYSTEM } from "@client/codes";
import { resourcesOf } from "@client/fhir";
import { sortReports } from "@client/reports";
import { extensionsOf, idOf, studyInstanceUid, uidOf } from "@client/resource";
import type { Session } from "@client/session";
import i18next from "i18next";
import { observationsOf } from "./findings";

const LUMBAR_MR_REPORT = "24968-0";

export interface ReportRecord {
  report: fhir4.DiagnosticReport;
  observations: fhir4.Observation[];
  study: fhir4.ImagingStudy | undefined;
  /** Every model that made a finding of the report. */
  devices: fhir4.Device[];
  /** Newest first. */
  provenance: fhir4.Provenance[];
  studyInstanceUid: string | undefined;
  sourceSeriesUid: string | undefined;
  segmentationSeriesUid: string | undefined;
  keyImageSeriesUid: string | undefined;
}

/** Reports of the patient, newest examination first. */
export async function loadReports(session: Session, patientId: string): Promise<fhir4.DiagnosticReport[]> {
  const reports = await session.fhir.all("DiagnosticReport", [
    ["patient", patientId],
    ["code", `http://loinc.org|${LUMBAR_MR_REPORT}`],
    ["_count", "50"],
  ]);
  return sortReports(reports);
}

function seriesUid(report: fhir4.DiagnosticReport, url: string): string | undefined {
  return uidOf(extensionsOf(report, url)[0]?.valueUri);
}

async function observationsFor(session: Session, patientId: string, report: fhir4.DiagnosticReport): Promise<fhir4.Observation[]> {
  const ids = (report.result ?? []).flatMap((reference) => idOf(reference, "Observation") ?? []);
  const chunks = Array.from({ length: Math.ceil(ids.length / 50) }, (_, index) => ids.slice(index * 50, index * 50 + 50));
  const pages = await Promise.all(
    chunks.map((chunk) =>
      session.fhir.all("Observation", [
        ["_id", chunk.join(",")],
        ["patient", patientId],
        ["_count", "50"],
      ]),
    ),
  );
  const found = observationsOf(report, pages.flat());
  // A report whose findings cannot all be read must not look like a report with fewer findings.
  if (found.length !== ids.length) throw new Error(`${ids.length - found.length} of ${ids.length} findings could not be read`);
  return found;
}

export async function loadRecord(session: Session, patientId: string, reportId: string): Promise<ReportRecord> {
  const report = await session.fhir.read("DiagnosticReport", reportId);
  if (idOf(report.subject, "Patient") !== patientId) throw new Error(i18next.t("review.reportOfAnother"));
  const studyId = idOf(report.imagingStudy?.[0], "ImagingStudy");
  const [observations, study, provenance] = await Promise.all([
    observationsFor(session, patientId, report),
    studyId ? session.fhir.read("ImagingStudy", studyId) : undefined,
    session.fhir.search("Provenance", [["target", `DiagnosticReport/${reportId}`], ["_count", "50"]]),
  ]);
  // Images of another patient must never stand beside these findings.
  if (study && idOf(study.subject, "Patient") !== patientId) throw new Error(i18next.t("review.studyOfAnother"));
  const deviceIds = new Set(observations.flatMap((item) => idOf(item.device, "Device") ?? []));
  const devices = await Promise.all([...deviceIds].map((id) => session.fhir.read("Device", id)));
  return {
    report,
    observations,
    study,
    devices,
    provenance: resourcesOf(provenance, "Provenance").sort((a, b) => Date.parse(b.recorded) - Date.parse(a.recorded)),
    studyInstanceUid: studyInstanceUid(study?.identifier),
    sourceSeriesUid: seriesUid(report, SYSTEM.EXTENSION_SOURCE_SERIES),
    segmentationSeriesUid: seriesUid(report, SYSTEM.EXTENSION_SEGMENTATION),
    keyImageSeriesUid: seriesUid(report, SYSTEM.EXTENSION_KEY_IMAGES),
  };
}

/** Name and version of the model, "name version". */
export function modelText(device: fhir4.Device | undefined): string | undefined {
  if (!device) return undefined;
  const name = device.deviceName?.[0]?.name ?? device.modelNumber ?? "";
  const version = device.version?.[0]?.value;
  return [name, version].filter(Boolean).join(" ") || undefined;
}

/** The model that made one finding. */
export function modelOf(devices: fhir4.Device[], observation: fhir4.Observation): string | undefined {
  const id = idOf(observation.device, "Device");
  return modelText(devices.find((device) => device.id === id));
}

/** What a clinician calls the source series: its description, else its number. */
export function sourceText(record: ReportRecord): string | undefined {
  const series = record.study?.series?.find((item) => item.uid === record.sourceSeriesUid);
  if (!series) return record.sourceSeriesUid;
  return series.description ?? (series.number === undefined ? series.uid : `#${series.number}`);
}

export interface Verification {
  kind: string;
  who: string;
  when: string;
  reason: string | undefined;
}

/** What persons decided about the report, newest first. */
export function verificationsOf(provenance: fhir4.Provenance[]): Verification[] {
  return provenance.flatMap((item) => {
    const person = item.agent.find((agent) => agent.who.reference?.includes("Practitioner/"));
    if (!person) return [];
    return [
      {
        kind: item.activity?.coding?.find((coding) => coding.system === SYSTEM.DECISION)?.code ?? "",
        who: person.who.display ?? person.who.reference ?? "",
        when: item.recorded,
        reason: item.reason?.[0]?.text,
      },
    ];
  });
}
