/** What a clinician types into the patient box, as a FHIR search. https://hl7.org/fhir/R4/patient.html#search */
import type { Parameters } from "@client/fhir";

export const PATIENTS_PER_PAGE = 15;

/** Text with a digit is a number (exact, as identifiers are); anything else is the beginning of a name. */
export function patientQuery(text: string): Parameters {
  const term = text.trim();
  const query: Parameters = [
    ["_sort", "-_lastUpdated"],
    ["_count", String(PATIENTS_PER_PAGE)],
  ];
  if (!term) return query;
  query.push(/\d/.test(term) ? ["identifier", term] : ["name", term]);
  return query;
}
