"""Results of models in the record as the worker writes them, and physicians' decisions as the review app makes them.

All data is SYNTHETIC. The shape of a decision is that of smart_apps/result_review/decision.ts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from ai_services.prediction import Finding, ModelIdentity
from ai_services.recommendation.rule_base import load_rule_base
from ai_services.results.bundle import ClinicalInputs, build_results
from terminology import systems
from terminology.codes import MORPHOLOGY, PFIRRMANN, SYNTHETIC
from tests.builders.prediction import MODEL, prediction, run_context
from tests.contract.fhir.api import Api

DOCTOR = "Practitioner/dr-synthetic"
_LEFT_OUT = frozenset({"CarePlan", "RequestGroup", "GuidanceResponse"})


@dataclass(frozen=True, slots=True)
class Study:
    """One study of a SYNTHETIC patient in the record."""

    patient: str
    study_instance_uid: str
    report: str


def patient_of(name: str, *, institution: str | None = None, gender: str = "female", born: str = "1961-07-13") -> Any:
    """A patient whose every value can be told from all others."""
    managed = {"managingOrganization": {"reference": f"Organization/{institution}"}} if institution else {}
    return {
        "resourceType": "Patient",
        "id": name,
        "identifier": [{"system": f"{systems.IDENTIFIER_PATIENT}/TEST", "value": f"SYN-MRN-{name}"}],
        "name": [{"family": f"合成{name}", "given": [f"Synthetic{name}"]}],
        "telecom": [{"system": "phone", "value": f"+86-138-0000-{name}"}],
        "gender": gender,
        "birthDate": born,
        **managed,
    }


def research_consent(patient: str, kind: str = "permit", **provision: Any) -> dict[str, Any]:
    """A Consent of scope research."""
    scope = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"}]}
    category = {"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": scope,
        "category": [category],
        "patient": {"reference": patient},
        "policyRule": {"text": "SYNTHETIC"},
        "provision": {"type": kind, **provision},
    }


async def study_of(
    api: Api,
    patient: dict[str, Any],
    number: str,
    *,
    findings: Sequence[Finding] | None = None,
    models: Sequence[ModelIdentity] = (MODEL,),
    recorded: datetime = datetime(2026, 10, 1, 8, tzinfo=UTC),
) -> Study:
    """Write patient, ImagingStudy and the results of a run, as the worker does; options are left out."""
    await api.put_ok(patient)
    uid = f"1.2.826.0.1.3680043.8.498.77.{number}"
    tag = {"tag": [SYNTHETIC.coding()]}
    reference = f"Patient/{patient['id']}"
    imaging = {
        "resourceType": "ImagingStudy",
        "meta": tag,
        "identifier": [{"system": systems.DICOM_UID, "value": f"urn:oid:{uid}"}],
        "status": "available",
        "subject": {"reference": reference},
        "series": [{"uid": f"{uid}.1", "modality": {"system": systems.DCM, "code": "MR"}, "numberOfInstances": 15}],
    }
    imaging_study = f"ImagingStudy/{(await api.create(imaging))['id']}"
    made = prediction(study_instance_uid=uid, items=None if findings is None else tuple(findings))
    made = replace(made, models=tuple(models), series_instance_uid=f"{uid}.1")
    context = run_context(study_instance_uid=uid, imaging_study=imaging_study, patient=reference, recorded_at=recorded)
    bundle = build_results(made, context, ClinicalInputs(patient, (), date(2026, 10, 1)), load_rule_base())
    bundle["entry"] = [item for item in bundle["entry"] if item["resource"]["resourceType"] not in _LEFT_OUT]
    kept = {item["fullUrl"] for item in bundle["entry"]}
    for item in bundle["entry"]:
        if item["resource"]["resourceType"] == "Provenance":
            targets = item["resource"]["target"]
            item["resource"]["target"] = [one for one in targets if one.get("reference", "") in {*kept, ""}]
    response = await api.post("/fhir/", bundle)
    assert response.status_code == 200, response.text
    locations = [item["response"]["location"].split("/fhir/")[-1] for item in response.json()["entry"]]
    report = next(item for item in locations if item.startswith("DiagnosticReport/"))
    return Study(reference, uid, "/".join(report.split("/")[:2]))


async def decide(
    api: Api,
    study: Study,
    kind: str,
    amendments: Mapping[tuple[str, str], str] | None = None,
    *,
    recorded: str = "2026-10-02T09:30:00Z",
    reason: str = "SYNTHETIC: 张三 looked again",
    who: str = DOCTOR,
) -> None:
    """Sign a report: verify, amend (values by finding and level) or reject."""
    doctor = api.as_("system/*.rs user/*.cruds", fhirUser=who, sub=who, every_institution=True)
    report = (await doctor.get(f"/fhir/{study.report}")).json()
    ids = [item["reference"].split("/")[-1] for item in report["result"]]
    found = (await doctor.get(f"/fhir/Observation?_id={','.join(ids)}&_count=100")).json()["entry"]
    changed = [{**report, "status": {"verify": "final", "amend": "amended", "reject": "entered-in-error"}[kind]}]
    for before in (item["resource"] for item in found):
        after = _decided(before, kind, amendments or {}, who)
        if after != before:
            changed.append(after)
    provenance = {
        "resourceType": "Provenance",
        "target": [{"reference": _reference(item)} for item in changed],
        "recorded": recorded,
        "activity": {"coding": [{"system": systems.DECISION, "code": kind}]},
        "reason": [{"text": reason}],
        "agent": [
            {
                "type": {"coding": [{"system": systems.PROVENANCE_AGENT, "code": "verifier"}]},
                "who": {"reference": who, "display": "合成医生"},
            }
        ],
        "entity": [
            {"role": "revision", "what": {"reference": f"{_reference(item)}/_history/{item['meta']['versionId']}"}}
            for item in changed
        ],
    }
    entries: list[dict[str, Any]] = [
        {
            "resource": item,
            "request": {"method": "PUT", "url": _reference(item), "ifMatch": f'W/"{item["meta"]["versionId"]}"'},
        }
        for item in changed
    ]
    entries.append({"resource": provenance, "request": {"method": "POST", "url": "Provenance"}})
    response = await doctor.transaction(*entries)
    assert response.status_code == 200, response.text


def _decided(before: dict[str, Any], kind: str, amendments: Mapping[tuple[str, str], str], who: str) -> dict[str, Any]:
    if kind == "reject":
        return {**before, "status": "entered-in-error"}
    code = before["code"]["coding"][0]["code"]
    level = before.get("bodySite", {}).get("coding", [{}])[0].get("code", "")
    chosen = amendments.get((code, level))
    if chosen is None:
        return {**before, "status": "final"} if before["status"] == "preliminary" else before
    known = (MORPHOLOGY if code == "F01" else PFIRRMANN)[chosen]
    kept = {key: value for key, value in before.items() if key not in ("dataAbsentReason", "method", "component")}
    performer = [{"reference": who, "display": "合成医生"}]
    return {**kept, "status": "amended", "performer": performer, "valueCodeableConcept": known.concept()}


def _reference(resource: dict[str, Any]) -> str:
    return f"{resource['resourceType']}/{resource['id']}"
