/** Two identifiers on every screen (hazard H01): name and number, then sex and age. */
import { useTranslation } from "react-i18next";
import { ageYears } from "../format";
import { patientIdentifier, patientName } from "../resource";

export function PatientBanner({ patient }: { patient: fhir4.Patient | undefined }) {
  const { t } = useTranslation();
  if (!patient) return null;
  const age = ageYears(patient.birthDate);
  const gender = patient.gender ? t(`gender.${patient.gender}`) : t("gender.unknown");
  return (
    <div className="patient-banner" data-testid="patient-banner">
      <strong>{patientName(patient) || t("patient.noName")}</strong>
      <span className="patient-id">{patientIdentifier(patient)}</span>
      <span>{gender}</span>
      <span>{age === undefined ? t("patient.noAge") : t("patient.age", { age })}</span>
      {patient.birthDate ? <span className="patient-birth">{patient.birthDate}</span> : null}
    </div>
  );
}
