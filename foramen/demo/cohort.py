"""A few SYNTHETIC patients with clinical inputs: numbered names nobody could mistake for a person's.

Shapes: clinical model §2 (inputs) and §6.1 (resources). Everything carries the tag SYNTHETIC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from terminology import systems
from terminology.codes import SYNTHETIC

ISSUER = "DEMO"
ORGANIZATION = "demo-hospital"
PRACTITIONER = "demo-surgeon"

Answer = bool | int | float | str


@dataclass(frozen=True, slots=True)
class DemoPatient:
    """One invented patient and what is known about them; what is not in `answers` was not asked."""

    logical_id: str
    dicom_patient_id: str
    family: str
    given: str
    gender: str
    birth_date: str
    answers: dict[str, Answer] = field(default_factory=dict)


_COMPLETE: dict[str, Answer] = {
    "redflag.ces": False,
    "redflag.other": "none",
    "exam.motor": 4,
    "side": "left",
    "index_level": "L4-L5",
    "concord": True,
    "duration_weeks": 14,
    "conservative.weeks": 10,
    "conservative.failed": True,
    "pain.leg_nrs": 7,
    "pain.back_nrs": 3,
    "pain.dominant": "leg",
    "motor.progressive": False,
    "instability": False,
    "coagulopathy": False,
    "infection.active": False,
    "asa": 2,
    "pregnancy": False,
    "recurrent": False,
    "chronic_lbp": False,
    "heavy_labour": False,
    "smoker": True,
    "diabetes": False,
    "osteoporosis.untreated": False,
    "severe_uncontrolled_pain": False,
}


def demo_patients(imaging_patient_ids: list[str]) -> list[DemoPatient]:
    """Build the cohort: one patient for each DICOM PatientID that will send a study, and three without one.

    The first has complete clinical inputs; the others show what missing answers look like.
    """
    people = []
    for number, dicom_patient_id in enumerate(imaging_patient_ids, start=1):
        people.append(
            DemoPatient(
                logical_id=dicom_patient_id.lower(),
                dicom_patient_id=dicom_patient_id,
                family="演示",
                given=f"患者{number:02d}",
                gender="male" if number % 2 else "female",
                birth_date=f"{1971 + (number - 1) % 30}-01-01",
                answers=_COMPLETE if number == 1 else {},
            )
        )
    for number in range(len(people) + 1, len(people) + 4):
        people.append(
            DemoPatient(
                logical_id=f"syn-{number:04d}",
                dicom_patient_id=f"SYN-{number:04d}",
                family="演示",
                given=f"患者{number:02d}",
                gender="female" if number % 2 else "male",
                birth_date=f"{1961 + (number - 1) % 40}-06-01",
            )
        )
    return people


def cohort_bundle(patients: list[DemoPatient], authored: str) -> dict[str, Any]:
    """Build one transaction that writes the cohort; PUT with fixed ids, so that a repeat changes nothing twice.

    Parameters
    ----------
    patients : the invented patients
    authored : FHIR instant of the clinical inputs
    """
    resources: list[dict[str, Any]] = [_organization(), _practitioner()]
    for patient in patients:
        resources.append(_patient(patient))
        if patient.answers:
            resources.append(_inputs(patient, authored))
    entries = [
        {"resource": item, "request": {"method": "PUT", "url": f"{item['resourceType']}/{item['id']}"}}
        for item in resources
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _meta() -> dict[str, Any]:
    return {"tag": [SYNTHETIC.coding()]}


def _organization() -> dict[str, Any]:
    return {
        "resourceType": "Organization",
        "id": ORGANIZATION,
        "meta": _meta(),
        "active": True,
        "name": "演示医院 Demo Hospital (SYNTHETIC)",
    }


def _practitioner() -> dict[str, Any]:
    return {
        "resourceType": "Practitioner",
        "id": PRACTITIONER,
        "meta": _meta(),
        "active": True,
        "name": [{"text": "演示医生 Demo Surgeon", "family": "演示", "given": ["医生"]}],
    }


def _patient(patient: DemoPatient) -> dict[str, Any]:
    system = f"{systems.IDENTIFIER_PATIENT}/{ISSUER}"
    return {
        "resourceType": "Patient",
        "id": patient.logical_id,
        "meta": _meta(),
        "identifier": [{"system": system, "value": patient.dicom_patient_id}],
        "active": True,
        "name": [
            {
                "text": f"{patient.family}{patient.given} (SYNTHETIC)",
                "family": patient.family,
                "given": [patient.given],
            }
        ],
        "gender": patient.gender,
        "birthDate": patient.birth_date,
        "managingOrganization": {"reference": f"Organization/{ORGANIZATION}"},
    }


def _inputs(patient: DemoPatient, authored: str) -> dict[str, Any]:
    return {
        "resourceType": "QuestionnaireResponse",
        "id": f"{patient.logical_id}-inputs",
        "meta": _meta(),
        "questionnaire": systems.INTAKE_QUESTIONNAIRE,
        "status": "completed",
        "subject": {"reference": f"Patient/{patient.logical_id}"},
        "authored": authored,
        "author": {"reference": f"Practitioner/{PRACTITIONER}"},
        "item": [{"linkId": name, "answer": [_answer(value)]} for name, value in patient.answers.items()],
    }


def _answer(value: Answer) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"valueBoolean": value}
    if isinstance(value, int):
        return {"valueInteger": value}
    if isinstance(value, float):
        return {"valueDecimal": value}
    return {"valueCoding": {"code": value}}
