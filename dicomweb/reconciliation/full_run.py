"""The two-way comparison of archive, index and record: streamed, flat in memory, and taken up where it was left.

First the archive's studies (which of them the index does not know), then the index's: each against the archive's list
of its files, against its ImagingStudy and against its Patient, fifty studies at a time. Nothing is changed here: what
is out of line is noted, and the intake mends it (`study_truth`), one study at a time, as it does all day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.patient_match import replaced_by
from dicomweb.reconciliation import rows
from dicomweb.reconciliation.comparison import Archived, compare
from dicomweb.reconciliation.demographics import corrections, hash_of
from dicomweb.reconciliation.drifts import Finding, mended
from dicomweb.reconciliation.kinds import (
    DEMOGRAPHICS,
    DUPLICATE,
    HEADER_CHANGED,
    LATE,
    MISSING,
    NOT_INDEXED,
    PATIENT_CHANGED,
    PATIENT_MERGED,
    RECORD_CHANGED,
    RECORD_DELETED,
    RECORD_MISSING,
    Kind,
)
from dicomweb.reconciliation.watch import trace_of
from dicomweb.registration import recorded_hash, token_parameter
from foramen.kernel.fhir_client import FhirClient
from terminology import systems

_PAGE = 500
_BATCH = 50
_STUDIES = """SELECT s.study_instance_uid, s.state, s.patient_ref, s.recorded, s.instance_count, s.correction,
        s.attributes || coalesce(s.as_stored, '{}') AS stored
    FROM dicomweb.study s WHERE s.study_instance_uid > $1 AND ($2::text IS NULL OR s.study_instance_uid = $2)
    ORDER BY s.study_instance_uid LIMIT $3"""
_BUSY = "SELECT study_instance_uid FROM dicomweb.arrival WHERE study_instance_uid = ANY($1::text[])"
_KNOWN = """SELECT study_instance_uid FROM dicomweb.study WHERE study_instance_uid = ANY($1::text[])
    UNION SELECT study_instance_uid FROM dicomweb.rejected_instance WHERE study_instance_uid = ANY($1::text[])"""
_LAST = """SELECT id, phase, position, studies, found FROM dicomweb.comparison WHERE ended_at IS NULL
    ORDER BY id DESC LIMIT 1"""
_BEGIN = "INSERT INTO dicomweb.comparison (phase) VALUES ('archive') RETURNING id"
_STEP = """UPDATE dicomweb.comparison SET phase = $2, position = $3, studies = $4, found = $5,
    ended_at = CASE WHEN $2 = 'done' THEN now() END WHERE id = $1"""


@dataclass(frozen=True, slots=True)
class Difference:
    """One study that is out of line."""

    study_instance_uid: str
    kind: Kind
    instances: int = 0


@dataclass(slots=True)
class Run:
    """How far a comparison is."""

    id: int | None = None
    phase: str = "archive"
    position: str = ""
    studies: int = 0
    found: Counter[str] = field(default_factory=Counter)


class FullRun:
    """Compares everything, or one study."""

    def __init__(
        self, database: Database, archive: Archive, fhir: FhirClient, fhir_base: str, default_issuer: str | None
    ) -> None:
        self._database, self._archive, self._fhir = database, archive, fhir
        self._fhir_base, self._default_issuer = fhir_base, default_issuer

    async def compare(
        self, *, study: str | None = None, mend: bool = False, anew: bool = False, tell: Callable[[int], None]
    ) -> AsyncIterator[Difference]:
        """Yield what is out of line.

        Parameters
        ----------
        study : this one alone
        mend : note each for the intake, in one transaction with what is told of it
        anew : do not go on where an interrupted run stopped
        tell : called with the number of studies that were looked at since the last call

        Raises
        ------
        InteropError
            Archive, database or record could not be asked; the next run goes on from there.
        """
        run = await self._begin(study, anew)
        phases: dict[str, Callable[[Run, str | None], AsyncIterator[list[Difference]]]]
        phases = {"archive": self._archive_side, "index": self._index_side}
        for phase in list(phases)[list(phases).index(run.phase) :]:
            if run.phase != phase:
                run.phase, run.position = phase, ""
            before = run.studies
            async for batch in phases[phase](run, study):
                run.found.update(one.kind.code for one in batch)
                if mend:
                    await self._note(batch)
                await self._keep(run)
                tell(run.studies - before)
                before = run.studies
                for one in batch:
                    yield one
        run.phase = "done"
        await self._keep(run)

    async def _begin(self, study: str | None, anew: bool) -> Run:
        if study is not None:
            return Run()
        async with self._database.connection() as connection:
            left = None if anew else await connection.fetchrow(_LAST)
            if left is not None:
                return Run(left["id"], left["phase"], left["position"], left["studies"], Counter(left["found"]))
            return Run(await connection.fetchval(_BEGIN))

    async def _keep(self, run: Run) -> None:
        if run.id is not None:
            async with self._database.connection() as connection:
                await connection.execute(_STEP, run.id, run.phase, run.position, run.studies, dict(run.found))

    async def _note(self, batch: Sequence[Difference]) -> None:
        async with self._database.connection() as connection, connection.transaction():
            for one in sorted(batch, key=lambda item: item.study_instance_uid):
                trace = trace_of(one.study_instance_uid)
                await rows.note_change(connection, one.study_instance_uid, trace)
                if one.kind in (NOT_INDEXED, RECORD_MISSING):  # The mend itself cannot tell these from a new study.
                    finding = Finding(one.kind, count=one.instances)
                    await mended(connection, one.study_instance_uid, [finding], trace)

    async def _archive_side(self, run: Run, study: str | None) -> AsyncIterator[list[Difference]]:
        """The archive's studies that the index does not know."""
        if study is not None:
            run.studies += 1
            yield await self._unknown([study] if await self._archive.study_count(study) else [])
            return
        page: list[str] = []
        since = int(run.position or 0)
        async for uid in self._archive.study_uids(_PAGE, since):
            page.append(uid)
            if len(page) == _PAGE:
                since, run.studies = since + _PAGE, run.studies + _PAGE
                run.position = str(since)
                yield await self._unknown(page)
                page = []
        run.studies += len(page)
        yield await self._unknown(page)

    async def _unknown(self, uids: Sequence[str]) -> list[Difference]:
        async with self._database.connection() as connection:
            known = {row[0] for row in await connection.fetch(_KNOWN, list(uids))}
            known |= {row[0] for row in await connection.fetch(_BUSY, list(uids))}
        # What is being received is not out of line.
        return [Difference(uid, NOT_INDEXED) for uid in uids if uid not in known and await self._archive.is_stable(uid)]

    async def _index_side(self, run: Run, study: str | None) -> AsyncIterator[list[Difference]]:
        """The index's studies, against their files and against the record."""
        while True:
            async with self._database.connection() as connection:
                batch = await connection.fetch(_STUDIES, run.position, study, _BATCH)
            if not batch:
                return
            uids = [row["study_instance_uid"] for row in batch]
            found = [one for uid in uids for one in await self._with_archive(uid)]
            found += await self._with_record(batch)
            async with self._database.connection() as connection:
                # What is being worked on is not out of line; asked last, as it may have begun meanwhile.
                busy = {row[0] for row in await connection.fetch(_BUSY, uids)}
            run.position, run.studies = uids[-1], run.studies + len(uids)
            yield [one for one in found if one.study_instance_uid not in busy]

    async def _with_archive(self, study: str) -> list[Difference]:
        async with self._database.connection() as connection:
            known = await rows.indexed(connection, study)
            withdrawn = await rows.withdrawn(connection, study)
        archived = [Archived(*item) for item in await self._archive.study_contents(study)]
        plan = compare(archived, known, {uid for uid, orthanc_id in withdrawn.items() if orthanc_id is not None})
        parts = (
            *((LATE, plan.new), (HEADER_CHANGED, plan.rewritten), (PATIENT_CHANGED, plan.renamed)),
            *((MISSING, plan.missing), (DUPLICATE, plan.duplicates)),
        )
        found = [Difference(study, kind, len(items)) for kind, items in parts if items]
        return found if found and await self._archive.is_stable(study) else []

    async def _with_record(self, batch: Sequence[Any]) -> list[Difference]:
        uids = [row["study_instance_uid"] for row in batch]
        values = ",".join(token_parameter(systems.DICOM_UID, f"urn:oid:{uid}") for uid in uids)
        asked = [("identifier", values), ("_count", str(2 * _BATCH))]
        there = {
            str(item.get("value", "")).removeprefix("urn:oid:"): resource
            for resource in await self._fhir.search("ImagingStudy", asked)
            for item in resource.get("identifier", ())
        }
        patients = await self._patients({row["patient_ref"] for row in batch if row["patient_ref"]})
        found: list[Difference] = []
        for row in batch:
            kind = _of_record(row, there.get(row["study_instance_uid"]))
            found += [Difference(row["study_instance_uid"], kind, row["instance_count"])] if kind else []
            kind = self._of_patient(row, patients.get(row["patient_ref"]))
            found += [Difference(row["study_instance_uid"], kind, row["instance_count"])] if kind else []
        return found

    def _of_patient(self, row: Any, patient: dict[str, Any] | None) -> Kind | None:
        """Return what is out of line between a study's row and its Patient; one that was erased stays closed."""
        if patient is None or not row["instance_count"]:
            return None
        if replaced_by(patient, self._fhir_base) is not None:
            return PATIENT_MERGED
        wanted = hash_of(corrections(patient, row["stored"], self._default_issuer))
        return None if wanted == row["correction"] else DEMOGRAPHICS

    async def _patients(self, references: set[str]) -> dict[str, dict[str, Any]]:
        """Return these Patients as the record has them."""
        if not references:
            return {}
        ids = ",".join(sorted(name.removeprefix("Patient/") for name in references))
        found = await self._fhir.search("Patient", [("_id", ids), ("_count", str(_BATCH))])
        return {f"Patient/{one['id']}": one for one in found}


def _of_record(row: Any, resource: dict[str, Any] | None) -> Kind | None:
    """Return what is out of line between a study's row and its ImagingStudy."""
    if row["recorded"] is None:
        return RECORD_MISSING if resource is None and row["state"] == "registered" else None
    if resource is None:
        return RECORD_DELETED if row["instance_count"] else None
    return None if recorded_hash(resource) == row["recorded"] else RECORD_CHANGED
