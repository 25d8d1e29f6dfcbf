"""Modality Worklist: active imaging orders of the record as scheduled procedure steps. DICOM PS3.4 Annex K.

An order is a ServiceRequest with a modality (a DCM code among its `orderDetail`). How its elements become attributes
is in `scheduled_step`, and in docs/api/dimse.md. https://hl7.org/fhir/R4/servicerequest.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydicom import Dataset
from pydicom.valuerep import PersonName

from dicomweb.consents.closed_workitems import OpenWorkitems
from dicomweb.dimse import status
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.events import QUERY, dimse_event
from dicomweb.dimse.identifier import charset_for, key_text, with_charset
from dicomweb.dimse.matching import matches, returned
from dicomweb.dimse.parts import Parts
from dicomweb.institutions import bounds_of, organization_of
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError, InvalidRequestError
from foramen.kernel.identifiers import derived_uuid
from terminology import systems

STATION = f"{systems.BASE}/identifier/ae-title"
"""Identifier system of AE titles: `performer.identifier` names the scheduled station."""
_MOST = 2000
_DATE = re.compile(r"(\d{8})?(-)?(\d{8})?")
_SEX = {"male": "M", "female": "F", "other": "O"}


class Worklist:
    """Answers C-FIND of the worklist model."""

    def __init__(self, parts: Parts, bridge: Bridge) -> None:
        self._parts, self._bridge = parts, bridge
        self._opened = OpenWorkitems(parts.database, parts.closed_records)

    def answers(self, event: Any, context: AccessContext, trace_id: str) -> Iterator[Any]:
        """Yield a status with an identifier for each scheduled step."""
        try:
            query = _identifier(event)
            found = self._bridge.run(self._steps(query, context))
            self._record(200, context, trace_id)
        except InteropError as error:
            try:
                self._record(error.status, context, trace_id)
            except InteropError as fault:
                error = fault
            yield status.failed(error), None
            return
        charset = charset_for(query)
        for step in found:
            if event.is_cancelled:
                yield status.CANCEL, None
                return
            yield status.PENDING, with_charset(returned(query, step), charset)

    async def _steps(self, query: Dataset, context: AccessContext) -> list[Dataset]:
        """Ask the record for orders, and keep those that match and whose patients the account reaches."""
        bounds = bounds_of(context, self._parts.settings.institutions)
        requests: list[dict[str, Any]] = []
        patients: dict[str, dict[str, Any]] = {}
        async for resource in self._parts.fhir.search_pages("ServiceRequest", parameters_of(query)):
            if resource["resourceType"] == "Patient":
                patients[f"Patient/{resource['id']}"] = resource
            elif resource["resourceType"] == "ServiceRequest":
                requests.append(resource)
            if len(requests) > _MOST:
                raise InvalidRequestError("Too many orders; ask for a date or a patient")
        steps = []
        base = f"{self._parts.settings.fhir_base}/"
        subjects = [str(one.get("subject", {}).get("reference", "")).removeprefix(base) for one in requests]
        # The record was asked with our own token: what it closes to the account alone is left out here (ADR 0040).
        about = [(subject, _study_uid(request)) for subject, request in zip(subjects, requests, strict=True)]
        for number in await self._opened.open_to(context, about):
            request, patient = requests[number], patients.get(subjects[number])
            if patient is None:
                continue
            owner = organization_of(patient, self._parts.settings.fhir_base)
            if bounds is not None and (owner is None or owner != bounds.organization):
                continue
            step = scheduled_step(request, patient)
            if step is not None and matches(query, step):
                steps.append(step)
        return sorted(steps, key=_when)

    def _record(self, outcome: int, context: AccessContext, trace_id: str) -> None:
        entry = dimse_event(QUERY, "C-FIND", status=outcome, trace_id=trace_id, context=context)
        self._bridge.run(self._parts.audit.record(entry))


def parameters_of(query: Dataset) -> list[tuple[str, str]]:
    """FHIR search that narrows to what a worklist query can match; it never leaves out what matches."""
    parameters = [("status", "active"), ("_include", "ServiceRequest:patient"), ("_count", "200")]
    step = (query.get("ScheduledProcedureStepSequence") or [Dataset()])[0]
    date = _DATE.fullmatch(key_text(step.get("ScheduledProcedureStepStartDate")))
    if date is not None:
        low, dash, high = date.groups()
        if low:
            parameters.append(("occurrence", f"ge{_fhir_date(low)}"))
        if high or (low and not dash):
            parameters.append(("occurrence", f"le{_fhir_date(high or low)}"))
    for keyword, name in (("PatientID", "patient.identifier"), ("AccessionNumber", "identifier")):
        value = key_text(query.get(keyword))
        if value and not any(mark in value for mark in "*?\\"):
            parameters.append((name, value.translate({ord(mark): f"\\{mark}" for mark in "|,$"})))
    return parameters


def scheduled_step(request: dict[str, Any], patient: dict[str, Any]) -> Dataset | None:
    """Return an order as a worklist item (PS3.4 Table K.6-1); None: it is no imaging order.

    Parameters
    ----------
    request : ServiceRequest
    patient : its subject
    """
    modality = _modality(request)
    if modality is None:
        return None
    item = Dataset()
    _add_patient(item, patient)
    accession = _identifier_of(request, "ACSN")
    item.AccessionNumber = accession[:16]
    item.StudyInstanceUID = _study_uid(request)
    item.RequestedProcedureID = (accession or str(request["id"]))[:16]
    item.RequestedProcedureDescription = _text(request.get("code"))[:64]
    item.RequestedProcedurePriority = {"stat": "STAT", "urgent": "HIGH", "asap": "HIGH"}.get(
        str(request.get("priority", "")), "ROUTINE"
    )
    item.ReferringPhysicianName = str(request.get("requester", {}).get("display", ""))[:64]
    item.RequestingPhysician = item.ReferringPhysicianName
    item.ReferencedStudySequence = []
    step = Dataset()
    date, time = _start(request)
    step.Modality = modality
    step.ScheduledStationAETitle = _station(request)
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = date, time
    step.ScheduledPerformingPhysicianName = ""
    step.ScheduledProcedureStepDescription = item.RequestedProcedureDescription
    step.ScheduledProcedureStepID = str(request["id"])[:16]
    step.ScheduledStationName = ""
    step.ScheduledProcedureStepLocation = ""
    item.ScheduledProcedureStepSequence = [step]
    return item


def _identifier(event: Any) -> Dataset:
    try:
        identifier: Dataset = event.identifier
        identifier.decode()
    except Exception as exc:
        raise InvalidRequestError("The identifier cannot be read") from exc
    return identifier


def _add_patient(item: Dataset, patient: dict[str, Any]) -> None:
    names = patient.get("name") or [{}]
    item.PatientName = _person_name(names[0])
    prefix = f"{systems.IDENTIFIER_PATIENT}/"
    own: dict[str, Any] = next(
        (one for one in patient.get("identifier", []) if str(one.get("system", "")).startswith(prefix)), {}
    )
    item.PatientID = str(own.get("value", ""))[:64]
    item.IssuerOfPatientID = str(own.get("system", "")).removeprefix(prefix)[:64]
    born = str(patient.get("birthDate", "")).replace("-", "")
    item.PatientBirthDate = born if len(born) == 8 else ""  # FHIR has dates without a day, DA has not
    item.PatientSex = _SEX.get(str(patient.get("gender", "")), "")
    item.PatientWeight = None
    item.MedicalAlerts = item.Allergies = ""
    item.PregnancyStatus = None


def _person_name(name: dict[str, Any]) -> PersonName:
    family, given = str(name.get("family", "")), " ".join(name.get("given", []))
    plain = f"{family}^{given}".strip("^") or str(name.get("text", ""))
    # Ideographic names go into their own component group (PS3.5 §6.2.1.1).
    return PersonName(plain if plain.isascii() else f"={plain}")


def _modality(request: dict[str, Any]) -> str | None:
    codings = [coding for detail in request.get("orderDetail", []) for coding in detail.get("coding", [])]
    return next((str(coding["code"]) for coding in codings if coding.get("system") == systems.DCM), None)


def _station(request: dict[str, Any]) -> str:
    named = (performer.get("identifier", {}) for performer in request.get("performer", []))
    return next((str(one.get("value", ""))[:16] for one in named if one.get("system") == STATION), "")


def _identifier_of(request: dict[str, Any], kind: str) -> str:
    for one in request.get("identifier", []):
        if any(coding.get("code") == kind for coding in one.get("type", {}).get("coding", [])):
            return str(one.get("value", ""))
    return ""


def _study_uid(request: dict[str, Any]) -> str:
    """Study Instance UID of the order, or one that is always the same for it (PS3.5 §B.2: from a UUID)."""
    for one in request.get("identifier", []):
        if one.get("system") == systems.DICOM_UID:
            return str(one.get("value", "")).removeprefix("urn:oid:")
    return f"2.25.{derived_uuid('worklist-study', str(request['id'])).int}"


def _start(request: dict[str, Any]) -> tuple[str, str]:
    text = str(request.get("occurrenceDateTime") or request.get("occurrencePeriod", {}).get("start") or "")
    if len(text) < 10:
        return "", ""
    if "T" not in text:
        return text.replace("-", ""), ""
    when = datetime.fromisoformat(text)
    return when.strftime("%Y%m%d"), when.strftime("%H%M%S")


def _when(step: Dataset) -> tuple[str, str]:
    first = step.ScheduledProcedureStepSequence[0]
    return str(first.ScheduledProcedureStepStartDate), str(first.ScheduledProcedureStepStartTime)


def _text(concept: Any) -> str:
    concept = concept or {}
    codings = concept.get("coding") or [{}]
    return str(concept.get("text") or codings[0].get("display") or codings[0].get("code") or "")


def _fhir_date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}"
