"""Modality Performed Procedure Step: durable first, then a Procedure of the record. DICOM PS3.4 Annex F.7.

https://hl7.org/fhir/R4/procedure.html; mapping: docs/api/dimse.md.
"""

from __future__ import annotations

from typing import Any

import orjson
from pydicom import Dataset
from pydicom.uid import UID, generate_uid

from dicomweb.background import work_through
from dicomweb.dicom_json import dicom_json
from dicomweb.dimse import status
from dicomweb.dimse.application_entity import ApplicationEntity
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.events import PROCEDURE_RECORD, dimse_event
from dicomweb.dimse.parts import Parts
from dicomweb.dimse.procedure import procedure_of
from dicomweb.patient_match import match_patient
from foramen.kernel.errors import InteropError
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.log import get_log
from terminology import systems

IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"
_REQUIRED = ("PerformedProcedureStepID", "PerformedStationAETitle", "PerformedProcedureStepStartDate", "Modality")
_ONLY_AT_CREATION = frozenset(("ScheduledStepAttributesSequence", "PatientID", "PatientName", "Modality"))
_IDLE_S = 1.0
_LEASE_S = 120.0
_CLAIM = """UPDATE dicomweb.performed_step SET attempts = attempts + 1, due_at = now() + make_interval(secs => $1)
    WHERE sop_instance_uid = (SELECT sop_instance_uid FROM dicomweb.performed_step
        WHERE recorded < revision AND due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING *"""
_CHANGE = """UPDATE dicomweb.performed_step SET status = $2, attributes = $3, revision = revision + 1, attempts = 0,
    due_at = now() WHERE sop_instance_uid = $1"""


class PerformedSteps:
    """Takes N-CREATE and N-SET."""

    def __init__(self, parts: Parts, bridge: Bridge) -> None:
        self._parts, self._bridge = parts, bridge

    def created(self, event: Any, account: ApplicationEntity) -> tuple[Any, Dataset | None]:
        """N-CREATE: a step begins."""
        uid = str(event.request.AffectedSOPInstanceUID or "") or str(generate_uid())
        dataset = _attributes(event, "attribute_list")
        if dataset is None or not UID(uid).is_valid:
            return status.INVALID_ATTRIBUTE_VALUE, None
        if str(dataset.get("PerformedProcedureStepStatus") or "") != IN_PROGRESS:
            return status.INVALID_ATTRIBUTE_VALUE, None
        if any(not dataset.get(keyword) for keyword in _REQUIRED):
            return status.MISSING_ATTRIBUTE, None
        code = self._bridge.run(self._create(account, uid, _model(dataset)))
        answer = Dataset()
        answer.Status = code
        answer.AffectedSOPInstanceUID = uid
        return answer, None

    def changed(self, event: Any, account: ApplicationEntity) -> tuple[Any, Dataset | None]:
        """N-SET: attributes of a step that goes on, or its end."""
        dataset = _attributes(event, "modification_list")
        if dataset is None or any(keyword in dataset for keyword in _ONLY_AT_CREATION):
            return status.INVALID_ATTRIBUTE_VALUE, None
        wanted = str(dataset.get("PerformedProcedureStepStatus") or IN_PROGRESS)
        if wanted not in (IN_PROGRESS, COMPLETED, DISCONTINUED):
            return status.INVALID_ATTRIBUTE_VALUE, None
        uid = str(event.request.RequestedSOPInstanceUID)
        code = self._bridge.run(self._change(account, uid, wanted, _model(dataset)))
        if code != status.NO_LONGER_UPDATED:
            return code, None
        answer = Dataset()
        answer.Status = status.PROCESSING_FAILURE
        answer.ErrorID = status.NO_LONGER_UPDATED
        answer.ErrorComment = "The step may no longer be updated"
        return answer, None

    async def _create(self, account: ApplicationEntity, uid: str, model: dict[str, Any]) -> int:
        await self._audit("N-CREATE", account)
        query = """INSERT INTO dicomweb.performed_step (sop_instance_uid, ae_title, status, attributes)
                   VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING 1"""
        async with self._parts.database.connection() as connection:
            done = await connection.fetchval(query, uid, account.ae_title, IN_PROGRESS, model)
        return status.SUCCESS if done else status.DUPLICATE_SOP_INSTANCE

    async def _change(self, account: ApplicationEntity, uid: str, wanted: str, model: dict[str, Any]) -> int:
        await self._audit("N-SET", account)
        query = "SELECT status, attributes FROM dicomweb.performed_step WHERE sop_instance_uid = $1 AND ae_title = $2"
        async with self._parts.database.connection() as connection, connection.transaction():
            row = await connection.fetchrow(f"{query} FOR UPDATE", uid, account.ae_title)
            if row is None:
                return status.NO_SUCH_SOP_INSTANCE
            if row["status"] != IN_PROGRESS:
                return status.NO_LONGER_UPDATED
            await connection.execute(_CHANGE, uid, wanted, row["attributes"] | model)
        return status.SUCCESS

    async def _audit(self, service: str, account: ApplicationEntity) -> None:
        entry = dimse_event(PROCEDURE_RECORD, service, status=200, trace_id=new_trace_id(), context=account.context)
        await self._parts.audit.record(entry)


class StepRecorder:
    """Writes the steps to the record, in the background."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Work through the changes, until cancelled."""
        await work_through("performed steps", self.work_once, _IDLE_S, 2 * _IDLE_S)

    async def work_once(self) -> bool:
        """Write one step; whether there was one."""
        async with self._parts.database.connection() as connection:
            row = await connection.fetchrow(_CLAIM, _LEASE_S)
        if row is None:
            return False
        fault: str | None = None
        try:
            fault = await self._write(row)
        except InteropError as error:
            fault = error.issue_code
            get_log().warning("a performed step is not recorded yet", reason=error.message, attempt=row["attempts"])
        async with self._parts.database.connection() as connection:
            if fault is None:
                query = (
                    "UPDATE dicomweb.performed_step SET recorded = $2, last_fault = NULL WHERE sop_instance_uid = $1"
                )
                await connection.execute(query, row["sop_instance_uid"], row["revision"])
            else:
                wait_s = min(2.0 ** min(row["attempts"], 12), 3600.0)
                query = """UPDATE dicomweb.performed_step SET last_fault = $3,
                               due_at = now() + make_interval(secs => $2)
                           WHERE sop_instance_uid = $1 AND revision = $4"""
                await connection.execute(query, row["sop_instance_uid"], wait_s, fault, row["revision"])
        return True

    async def _write(self, row: Any) -> str | None:
        """Create or update the Procedure. Returns why it waits, None when it is done."""
        settings = self._parts.settings
        match = await match_patient(
            self._parts.fhir, row["attributes"], settings.default_patient_id_issuer, settings.fhir_base
        )
        if match.reference is None:
            return match.reason.code if match.reason else "no-patient-match"
        identifier = f"{systems.DICOM_UID}|urn:oid:{row['sop_instance_uid']}"
        found = await self._parts.fhir.search("Procedure", [("identifier", identifier)])
        accession = _scheduled(row["attributes"], "00080050")
        orders = await self._orders(accession, match.reference) if accession else []
        resource = procedure_of(
            row["sop_instance_uid"], row["status"], row["attributes"], match.reference, [one["id"] for one in orders]
        )
        if not found:
            await self._parts.fhir.create(resource, if_none_exist=f"identifier={identifier}")
        else:
            version = found[0].get("meta", {}).get("versionId")
            await self._parts.fhir.update(resource | {"id": found[0]["id"]}, if_match=version)
        return None

    async def _orders(self, accession: str, patient: str) -> list[dict[str, Any]]:
        escaped = accession.translate({ord(mark): f"\\{mark}" for mark in "\\|,$"})
        found = await self._parts.fhir.search("ServiceRequest", [("identifier", escaped), ("patient", patient)])
        return [one for one in found if one["resourceType"] == "ServiceRequest"][:1]


def _attributes(event: Any, name: str) -> Dataset | None:
    try:
        dataset: Dataset = getattr(event, name)
        dataset.decode()
    except Exception:  # noqa: BLE001  whatever pydicom raises here is a fault of the peer's bytes
        return None
    return dataset


def _model(dataset: Dataset) -> dict[str, Any]:
    plain: dict[str, Any] = orjson.loads(orjson.dumps(dicom_json(dataset), default=str).replace(b"\\u0000", b""))
    return plain


def _scheduled(attributes: dict[str, Any], tag: str) -> str:
    items = attributes.get("00400270", {}).get("Value") or [{}]
    values = items[0].get(tag, {}).get("Value") or [""]
    return str(values[0] or "")
