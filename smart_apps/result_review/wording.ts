/** Findings as words and numbers for the screen, with everything that must stand beside an AI value. */
import { FINDINGS, MORPHOLOGY, PFIRRMANN, SYSTEM } from "@client/codes";
import type { AiValueDetails } from "@client/components/AiValue";
import { quantityText } from "@client/format";
import { displayOf, ownLanguageLine, ownLanguagePhrase } from "@client/i18n";
import { codeOf } from "@client/resource";
import i18next from "i18next";
import { type Finding, unitText } from "./findings";

export interface Context {
  /** Model that made a finding: one report may hold findings of several. */
  model: (observation: fhir4.Observation) => string | undefined;
  source: string | undefined;
  verifiedBy: string | undefined;
}

const LEVEL_BEGINS = /([。.])\s*(?=(?:(?:T1[0-2]|L[1-6])-(?:T12|L[1-6]|S1)|全片|Study)[：:])/g;
const ROMAN: Record<string, string> = { "1": "I", "2": "II", "3": "III", "4": "IV", "5": "V" };

const VERTEBRAL = /^((?:T1[0-2]|L[1-6]|S1)) vertebral (body|arch)$/;

/** A segment's label, which DICOM has in English, in the language of the screen. */
export function segmentName(label: string): string {
  const [, level, part] = VERTEBRAL.exec(label) ?? [];
  return level && part ? i18next.t(`review.part.${part as "body" | "arch"}`, { level }) : label;
}

function valueText(observation: fhir4.Observation): { value: string; unit?: string | undefined } {
  const { valueQuantity: quantity, valueCodeableConcept: concept } = observation;
  if (quantity) {
    const unit = unitText(quantity);
    return { value: quantityText(quantity.value, unit), unit: unit || undefined };
  }
  if (concept) {
    const morphology = codeOf(concept, SYSTEM.MORPHOLOGY);
    if (morphology) return { value: displayOf(MORPHOLOGY, morphology) };
    const grade = codeOf(concept, SYSTEM.PFIRRMANN);
    if (grade) return { value: ROMAN[grade] ?? displayOf(PFIRRMANN, grade) };
    if (concept.text) return { value: ownLanguagePhrase(concept.text) };
    return { value: concept.coding?.[0]?.display ?? concept.coding?.[0]?.code ?? "" };
  }
  if (observation.valueBoolean !== undefined) return { value: i18next.t(observation.valueBoolean ? "word.yes" : "word.no") };
  return { value: String(observation.valueInteger ?? observation.valueString ?? "") };
}

function absentReason(observation: fhir4.Observation): string | undefined {
  const absent = observation.dataAbsentReason;
  const { value } = valueText(observation);
  if (!absent && value) return undefined;
  return absent ? absentText(absent) : i18next.t("ai.noReason");
}

/** Why a value is absent, in the language of the screen. */
export function absentText(absent: fhir4.CodeableConcept): string {
  const text = absent.text ?? absent.coding?.[0]?.display ?? absent.coding?.[0]?.code;
  return text ? ownLanguagePhrase(text) : i18next.t("ai.noReason");
}

function isNotable(observation: fhir4.Observation): boolean {
  const morphology = codeOf(observation.valueCodeableConcept, SYSTEM.MORPHOLOGY);
  if (morphology) return morphology !== "normal";
  return Number(codeOf(observation.valueCodeableConcept, SYSTEM.PFIRRMANN) ?? 0) >= 4;
}

/** The conclusion in the language of the screen, one line per level. */
export function conclusionText(conclusion: string): string {
  return ownLanguageLine(conclusion).replace(LEVEL_BEGINS, "$1\n");
}

export function findingName(finding: Finding): string {
  return FINDINGS[finding.code] ? displayOf(FINDINGS, finding.code) : (finding.observation.code.text ?? finding.code);
}

export function detailsOf(finding: Finding, context: Context): AiValueDetails {
  const { observation } = finding;
  const byPerson = observation.status === "amended" || observation.status === "corrected";
  return {
    name: [finding.level, findingName(finding)].filter(Boolean).join(" "),
    ...valueText(observation),
    confidence: finding.confidence,
    uncertainty: finding.uncertainty,
    model: context.model(observation),
    time: observation.issued ?? observation.effectiveDateTime ?? observation.meta?.lastUpdated,
    source: context.source,
    method: observation.method?.text && ownLanguagePhrase(observation.method.text),
    status: observation.status,
    verifiedBy: observation.status === "preliminary" ? undefined : context.verifiedBy,
    absentReason: absentReason(observation),
    notable: isNotable(observation),
    byPerson,
  };
}
