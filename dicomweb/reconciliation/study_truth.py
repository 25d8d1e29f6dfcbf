"""One truth of a study after any change: rows of the index as the archive has it, and the record as the index has it.

Durable first: who changes something notes it in the transaction of the change (`rows.note_change`); the intake works
through these notes until each is done. `StudyTruth.align` may run at any time and any number of times: it compares
what stands, it does not replay what happened. ADR 0041; https://hl7.org/fhir/R4/imagingstudy.html
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.patient_match import PatientMatch, match_patient
from dicomweb.reconciliation.demographics import corrections
from dicomweb.reconciliation.drifts import Finding, mended, open_findings, still_so
from dicomweb.reconciliation.indexing import Forget, Indexing, Outcome
from dicomweb.reconciliation.kinds import (
    DEMOGRAPHICS,
    MISSING,
    PATIENT_INACTIVE,
    PATIENT_MERGED,
    PATIENTS_MIXED,
    RECORD_DELETED,
    WITHDRAWN,
)
from dicomweb.reconciliation.laying_over import lay_over
from dicomweb.reconciliation.levels import Identity
from dicomweb.reconciliation.rows import note_change
from dicomweb.registration import Registration, needs_task, register, token_parameter, withdraw
from dicomweb.study_index import IndexedStudy, StudyIndex
from dicomweb.urgency import NOT_SAID, urgency_of
from foramen.kernel.errors import InteropError
from foramen.kernel.fhir_client import FhirClient
from foramen.kernel.log import get_log
from terminology import codes, systems

__all__ = ["StudyTruth", "bring_into_line", "note_change"]
_NOTED = """UPDATE dicomweb.study SET compared_at = now(), recorded = coalesce($2, recorded),
    imaging_study = coalesce($3, imaging_study) WHERE study_instance_uid = $1"""


class Aligning(Protocol):
    """What brings studies into line in the background (`dicomweb.intake.Intake`)."""

    async def register_study(self, study_instance_uid: str, trace_id: str) -> str:
        """Do it now."""
        ...

    def wake(self) -> None:
        """Look at what was noted."""
        ...


async def bring_into_line(database: Database, intake: Aligning, study_instance_uid: str, trace_id: str) -> str:
    """Bring one study into line after any change of it; durable first, then tried now, then until it is done.

    Returns
    -------
    Its state, or ``"waits"``: archive or record could not be asked now, and the background goes on with it.

    Raises
    ------
    UpstreamError
        The database does not answer: nothing is noted.
    """
    async with database.connection() as connection:
        await note_change(connection, study_instance_uid, trace_id)
    try:
        return await intake.register_study(study_instance_uid, trace_id)
    except InteropError as error:
        get_log().warning("study is brought into line later", reason=error.message, trace_id=trace_id)
        return "waits"
    finally:
        intake.wake()


class StudyTruth:
    """Compares one study in archive, index and record, and mends what may be mended without a person."""

    def __init__(
        self,
        database: Database,
        index: StudyIndex,
        archive: Archive,
        fhir: FhirClient,
        default_issuer: str | None,
        fhir_base: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        forget: Forget | None = None,
        storage: Path | None = None,
    ) -> None:
        self._database, self._index, self._fhir = database, index, fhir
        self._default_issuer, self._fhir_base, self._clock = default_issuer, fhir_base, clock
        self._indexing = Indexing(database, archive, forget, storage)
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def align(self, study_instance_uid: str, trace_id: str) -> str:
        """Bring index and record up to what the archive holds; returns the study's state. Again, it changes nothing.

        Raises
        ------
        InteropError
            Archive, database or record could not be asked or refused; nothing is half-written.
        """
        # One at a time: the second compares what the first has made, and has nothing to tell.
        async with self._busy.setdefault(study_instance_uid, asyncio.Lock()):
            return await self._align(study_instance_uid, trace_id)

    async def _align(self, study_instance_uid: str, trace_id: str) -> str:
        outcome = await self._indexing.follow(study_instance_uid, trace_id)
        study = await self._index.study(study_instance_uid)
        if study is None or (not study.series and study.recorded is None):
            return await self._nothing_left(study_instance_uid, outcome, trace_id)
        match = await self._match(study, outcome.identities)
        study = await self._lay_over(study, match, trace_id)
        imaging_study, tasks = await self._recorded(study_instance_uid)
        wanted = needs_task(study, tasks)
        registration = register(
            study,
            match,
            imaging_study=imaging_study,
            tasks=tasks,
            trace_id=trace_id,
            now=self._now(),
            urgency=await urgency_of(self._fhir, study, match.reference) if wanted else NOT_SAID,
        )
        written = await self._write(study, match, registration)
        known = f"ImagingStudy/{imaging_study['id']}" if imaging_study else written
        await self._tell(study, match, registration, outcome, trace_id, known)
        return registration.state

    def _now(self) -> str:
        return self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def _match(self, study: IndexedStudy, identities: list[Identity]) -> PatientMatch:
        """Whose study it is. Files that name several Patient IDs are one patient's when the record says so (merges)."""
        attributes = study.attributes | study.as_stored
        if not study.patient_conflict:
            return await self._ask(attributes)
        found = [await self._ask(_with_identity(attributes, one)) for one in identities]
        if found and found[0].reference and {one.reference for one in found} == {found[0].reference}:
            return found[0]
        return PatientMatch(reason=codes.REGISTRATION_REASONS["conflicting-patient-id"])

    async def _ask(self, attributes: dict[str, Any]) -> PatientMatch:
        return await match_patient(self._fhir, attributes, self._default_issuer, self._fhir_base)

    async def _lay_over(self, study: IndexedStudy, match: PatientMatch, trace_id: str) -> IndexedStudy:
        """Show the record's patient data; where nobody is found what is shown stays, but of another patient's file."""
        if match.reference is None and study.patient_ref is not None:
            return study
        stored = study.attributes | study.as_stored
        wanted = corrections(match.patient, stored, self._default_issuer) if match.reference else {}
        async with self._database.connection() as connection, connection.transaction():
            changed = await lay_over(connection, study.study_instance_uid, wanted, self._clock())
            if changed and (wanted or study.as_stored):
                await mended(connection, study.study_instance_uid, [Finding(DEMOGRAPHICS, count=changed)], trace_id)
        return await self._index.study(study.study_instance_uid) or study if changed else study

    async def _recorded(self, study_instance_uid: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The ImagingStudy of a study, and its Tasks of analysis."""
        identifier = ("identifier", token_parameter(systems.DICOM_UID, f"urn:oid:{study_instance_uid}"))
        found = await self._fhir.search("ImagingStudy", [identifier])
        tasks = await self._fhir.search(
            "Task",
            [
                ("group-identifier", identifier[1]),
                ("code", token_parameter(codes.ANALYSE_STUDY.system, codes.ANALYSE_STUDY.code)),
            ],
        )
        return (found[0] if found else None), tasks

    async def _write(self, study: IndexedStudy, match: PatientMatch, registration: Registration) -> str | None:
        """Write index and record; returns the ImagingStudy that was made."""
        # The index first: whoever sees the Task in the record must be able to fetch the study at once.
        await self._index.mark(
            study.study_instance_uid,
            patient_ref=match.reference,
            institution=match.institution,
            state=registration.state,
            input_hash=registration.input_hash,
        )
        if registration.bundle is None:
            return None
        answer = await self._fhir.transaction(registration.bundle)
        places = (str(entry.get("response", {}).get("location", "")) for entry in answer.get("entry", ()))
        found = (re.search(r"ImagingStudy/[A-Za-z0-9\-.]{1,64}", place) for place in places)
        return next((match.group() for match in found if match), None)

    async def _tell(
        self,
        study: IndexedStudy,
        match: PatientMatch,
        done: Registration,
        outcome: Outcome,
        trace_id: str,
        imaging_study: str | None,
    ) -> None:
        """Write what was set right and what waits, once the record has it."""
        uid = study.study_instance_uid
        count = sum(len(series.sop_instance_uids) for series in study.series)
        merged = study.patient_ref is not None and match.reference not in (None, study.patient_ref)
        right = [Finding(kind, count=count) for kind in (*done.findings, *([PATIENT_MERGED] if merged else []))]
        waiting = [
            *outcome.waiting,
            *(one for one in right if one.kind.needs_person),
            *([Finding(PATIENTS_MIXED, count=count)] if study.patient_conflict and not match.reference else []),
            *([Finding(PATIENT_INACTIVE, count=count)] if match.is_inactive else []),
        ]
        async with self._database.connection() as connection, connection.transaction():
            if await self._is_closed(connection, study.patient_ref):
                waiting = [one for one in waiting if one.kind is not RECORD_DELETED]
            await mended(connection, uid, [one for one in right if not one.kind.needs_person], trace_id)
            waiting = await still_so(connection, uid, waiting)
            await open_findings(connection, uid, waiting, trace_id)
            if study.patient_conflict and match.reference:
                await connection.execute(
                    "UPDATE dicomweb.study SET patient_conflict = false WHERE study_instance_uid = $1", uid
                )
            await connection.execute(_NOTED, uid, done.recorded, imaging_study)

    async def _is_closed(self, connection: Any, patient: str | None) -> bool:
        """Whether the record may hide what it has of this patient: then that nothing is found says nothing."""
        query = """SELECT EXISTS (SELECT 1 FROM dicomweb.closed_record WHERE patient_ref = $1)
                       OR EXISTS (SELECT 1 FROM dicomweb.restricted_record WHERE patient_ref = $1)"""
        return patient is not None and bool(await connection.fetchval(query, patient))

    async def _nothing_left(self, study: str, outcome: Outcome, trace_id: str) -> str:
        """The index holds nothing of it: what the record says of it is withdrawn when that was our doing."""
        if not outcome.withdrawn_through_us and not outcome.waiting:
            return "not in the archive"
        waiting = list(outcome.waiting)
        if outcome.withdrawn_through_us:
            imaging_study, tasks = await self._recorded(study)
            bundle = withdraw(imaging_study, tasks, self._now())
            if bundle is not None:
                await self._fhir.transaction(bundle)
                async with self._database.connection() as connection, connection.transaction():
                    await mended(connection, study, [Finding(WITHDRAWN)], trace_id)
        async with self._database.connection() as connection, connection.transaction():
            await open_findings(connection, study, [one for one in waiting if one.kind is not MISSING], trace_id)
        return "withdrawn" if outcome.withdrawn_through_us else "not in the archive"


def _with_identity(attributes: dict[str, Any], identity: Identity) -> dict[str, Any]:
    number, issuer = identity
    named = {"00100020": {"vr": "LO", "Value": [number]}} if number else {"00100020": {"vr": "LO"}}
    return attributes | named | {"00100021": {"vr": "LO", **({"Value": [issuer]} if issuer else {})}}
