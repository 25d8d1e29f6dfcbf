/** Observations of one report as rows per disc level: pure reading, no display text. Clinical model §1.4, §1.5 */
import { LEVELS, SYSTEM } from "@client/codes";
import { codeOf } from "@client/resource";

export interface Finding {
  observation: fhir4.Observation;
  /** Code in our finding system, such as F01. */
  code: string;
  level: string | undefined;
  segmentNumber: number | undefined;
  /** Share from 0 to 1. */
  confidence: number | undefined;
  uncertainty: string | undefined;
}

export interface LevelRow {
  level: string;
  findings: Map<string, Finding>;
  segmentNumber: number | undefined;
}

function componentOf(observation: fhir4.Observation, code: string): fhir4.ObservationComponent | undefined {
  return observation.component?.find((component) => codeOf(component.code, SYSTEM.COMPONENT) === code);
}

function confidenceOf(observation: fhir4.Observation): number | undefined {
  const quantity = componentOf(observation, "confidence")?.valueQuantity;
  if (quantity?.value === undefined) return undefined;
  return quantity.code === "%" || quantity.unit === "%" ? quantity.value / 100 : quantity.value;
}

/** Unit for the screen; a ratio has none. */
export function unitText(quantity: fhir4.Quantity): string {
  const unit = quantity.unit ?? quantity.code ?? "";
  return unit === "1" || /^\{.*\}$/.test(unit) ? "" : unit;
}

function uncertaintyOf(observation: fhir4.Observation): string | undefined {
  const component = componentOf(observation, "uncertainty");
  const quantity = component?.valueQuantity;
  if (quantity?.value !== undefined) return `± ${quantity.value} ${unitText(quantity)}`.trim();
  return component?.valueString;
}

function segmentNumberOf(observation: fhir4.Observation): number | undefined {
  const component = componentOf(observation, "segment-number");
  const value = component?.valueInteger ?? component?.valueQuantity?.value ?? Number(component?.valueString);
  return Number.isInteger(value) ? value : undefined;
}

export function findingOf(observation: fhir4.Observation): Finding {
  return {
    observation,
    code: codeOf(observation.code, SYSTEM.FINDING) ?? observation.code.coding?.[0]?.code ?? "",
    level: codeOf(observation.bodySite, SYSTEM.LEVEL),
    segmentNumber: segmentNumberOf(observation),
    confidence: confidenceOf(observation),
    uncertainty: uncertaintyOf(observation),
  };
}

/** Caudal first; a level we have no name for (such as T11-T12) comes last instead of getting lost. */
function levelRank(level: string): number {
  const rank = LEVELS.findIndex((known) => known === level);
  return rank === -1 ? LEVELS.length : rank;
}

/** One row per level that was looked at. */
export function levelRows(observations: fhir4.Observation[]): LevelRow[] {
  const findings = observations.map(findingOf);
  const levels = [...new Set(findings.flatMap((finding) => finding.level ?? []))].sort((a, b) => levelRank(a) - levelRank(b));
  return levels.map((level) => {
    const own = findings.filter((finding) => finding.level === level);
    return {
      level,
      findings: new Map(own.map((finding) => [finding.code, finding])),
      segmentNumber: own.find((finding) => finding.segmentNumber !== undefined)?.segmentNumber,
    };
  });
}

/** Findings that belong to no single disc, such as lordosis. */
export function generalFindings(observations: fhir4.Observation[]): Finding[] {
  return observations.map(findingOf).filter((finding) => finding.level === undefined);
}

/** Whether the vertebrae were counted reliably; undefined when the model did not say (hazard H02, rule R18). */
export function numberingConfident(observations: fhir4.Observation[]): boolean | undefined {
  const numbering = observations.find((observation) => codeOf(observation.code, SYSTEM.FINDING) === "numbering");
  return numbering ? componentOf(numbering, "numbering-confident")?.valueBoolean : undefined;
}

/** What the model could not assess for the whole study, by reason: one line each instead of one line per finding. */
export function absentByReason(findings: Finding[]): { reason: string; codes: string[] }[] {
  const groups = new Map<string, string[]>();
  for (const { observation, code } of findings) {
    const absent = observation.dataAbsentReason;
    if (!absent) continue;
    const reason = absent.text ?? absent.coding?.[0]?.display ?? absent.coding?.[0]?.code ?? "";
    groups.set(reason, [...(groups.get(reason) ?? []), code]);
  }
  return [...groups].map(([reason, codes]) => ({ reason, codes }));
}

/** Observations of a report in the order of `result`, leaving out what is not among `observations`. */
export function observationsOf(report: fhir4.DiagnosticReport, observations: fhir4.Observation[]): fhir4.Observation[] {
  const byId = new Map(observations.map((observation) => [observation.id, observation]));
  return (report.result ?? []).flatMap((reference) => {
    const found = byId.get(reference.reference?.split("/").at(-1));
    return found ? [found] : [];
  });
}
