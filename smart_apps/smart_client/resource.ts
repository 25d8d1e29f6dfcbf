/** Small readings of FHIR resources that every app needs. */
import { AI_GENERATED, MODEL_RECALLED, SYNTHETIC, SYSTEM } from "./codes";
import { nameText } from "./session";

export function hasTag(resource: { meta?: fhir4.Meta } | undefined, code: string): boolean {
  return resource?.meta?.tag?.some((tag) => tag.system === SYSTEM.TAG && tag.code === code) ?? false;
}

export function isSynthetic(resource: { meta?: fhir4.Meta } | undefined): boolean {
  return hasTag(resource, SYNTHETIC);
}

export function isAiGenerated(resource: { meta?: fhir4.Meta } | undefined): boolean {
  return hasTag(resource, AI_GENERATED);
}

/** Written by a model version that was recalled: nobody may rely on it before looking again. */
export function isRecalled(resource: { meta?: fhir4.Meta } | undefined): boolean {
  return hasTag(resource, MODEL_RECALLED);
}

/** Synthetic is not only a tag: PatientIDs of generated patients start with `SYN-`. */
export function isSyntheticPatient(patient: fhir4.Patient | undefined): boolean {
  return isSynthetic(patient) || (patient?.identifier?.some((item) => item.value?.startsWith("SYN-")) ?? false);
}

export function codeOf(concept: fhir4.CodeableConcept | undefined, system: string): string | undefined {
  return concept?.coding?.find((coding) => coding.system === system)?.code;
}

export function extensionsOf(resource: { extension?: fhir4.Extension[] } | undefined, url: string): fhir4.Extension[] {
  return resource?.extension?.filter((extension) => extension.url === url) ?? [];
}

/** The bare UID in `urn:oid:<uid>`. */
export function uidOf(uri: string | undefined): string | undefined {
  return uri?.replace(/^urn:oid:/, "");
}

export function studyInstanceUid(identifiers: fhir4.Identifier[] | undefined): string | undefined {
  return uidOf(identifiers?.find((item) => item.system === SYSTEM.DICOM_UID)?.value);
}

export function idOf(reference: fhir4.Reference | undefined, type: string): string | undefined {
  const [kind, id] = (reference?.reference ?? "").split("/").slice(-2);
  return kind === type ? id : undefined;
}

export function patientName(patient: fhir4.Patient | undefined): string {
  return nameText(patient?.name);
}

/** PatientID as the hospital knows it. */
export function patientIdentifier(patient: fhir4.Patient | undefined): string {
  const own = patient?.identifier?.find((item) => item.system?.startsWith(SYSTEM.IDENTIFIER_PATIENT));
  return own?.value ?? patient?.identifier?.[0]?.value ?? "";
}
