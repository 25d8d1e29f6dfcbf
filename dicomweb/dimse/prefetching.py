"""Prefetch priors from an outside PACS by rule: an arrival or an order starts it; C-FIND, then C-GET of what we lack.

DICOM PS3.4 §C.4.1, §C.4.3 (as SCU). C-GET, so that the outside system needs no way to call us.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from dicomweb.background import work_through
from dicomweb.dimse import status
from dicomweb.dimse.application_entity import ApplicationEntity
from dicomweb.dimse.contexts import STORAGE_CLASSES
from dicomweb.dimse.events import IMPORT, QUERY, dimse_event
from dicomweb.dimse.outgoing import associated
from dicomweb.dimse.parts import Parts
from dicomweb.dimse.received_file import received_file
from dicomweb.dimse.rules import SeriesRule, rule_of
from dicomweb.dimse.storing import Storing
from dicomweb.dimse.transfer_syntax import plain_syntaxes
from dicomweb.instance_header import tag_of, text_values
from foramen.kernel.identifiers import new_trace_id
from terminology import systems

_IDLE_S = 1.0
_ORDERS_EVERY_S = 10.0
_OVERLAP = timedelta(seconds=60)
_LEASE_S = 1800.0
_MOST_ATTEMPTS = 8
_MOST_CLASSES = 120
_OF_THE_EYE: tuple[str, ...] = (
    "Ophthalmic",
    "Macular",
    "Lens",
    "Refraction",
    "Autorefraction",
    "Keratometry",
    "Acuity",
)
_OF_THE_EYE += ("Spectacle", "Stereometric", "Dermoscopic", "Confocal", "RT ", "Inventory", "Color Palette")
_RULES = "SELECT * FROM dicomweb.prefetch_rule WHERE active ORDER BY name"
_STUDIES = """SELECT study_instance_uid, updated_at FROM dicomweb.study
    WHERE updated_at > $1 AND NOT patient_conflict ORDER BY updated_at LIMIT 500"""
_ADD = """INSERT INTO dicomweb.prefetch_job (rule_name, trigger, patient_id, issuer, before_date)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"""
_CLAIM = """UPDATE dicomweb.prefetch_job SET attempts = attempts + 1, due_at = now() + make_interval(secs => $1)
    WHERE (rule_name, trigger) = (SELECT rule_name, trigger FROM dicomweb.prefetch_job
        WHERE state = 'waiting' AND due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *"""
_END = """UPDATE dicomweb.prefetch_job SET state = $3, studies = $4, last_fault = $5,
    due_at = now() + make_interval(secs => $6) WHERE rule_name = $1 AND trigger = $2"""


class SourceError(Exception):
    """The outside system cannot be reached, or refuses."""


class Prefetching:
    """Finds triggers, asks the outside system, and stores what it sends."""

    def __init__(self, parts: Parts, storing: Storing) -> None:
        self._parts, self._storing = parts, storing
        self._seen: dict[str, datetime] = {}
        self._orders_at, self._orders_since = 0.0, datetime.now(UTC)

    async def run(self) -> None:
        """Work, until cancelled."""
        await work_through("prefetching", self._round, _IDLE_S, 5 * _IDLE_S)

    async def _round(self) -> bool:
        await self.find_work()
        return await self.work_once()

    async def find_work(self) -> None:
        """Make a job of each registered study and each new order that a rule covers."""
        async with self._parts.database.connection() as connection:
            rules = [rule_of(row, "source") for row in await connection.fetch(_RULES)]
        for rule in rules:
            since = max(self._seen.get(rule.name, rule.since) - _OVERLAP, rule.since)
            async with self._parts.database.connection() as connection:
                studies = await connection.fetch(_STUDIES, since)
            for row in studies:
                await self._from_study(rule, row["study_instance_uid"])
                self._seen[rule.name] = row["updated_at"]
        if rules and time.monotonic() - self._orders_at > _ORDERS_EVERY_S:
            self._orders_at = time.monotonic()
            await self._from_orders(rules)

    async def _from_study(self, rule: SeriesRule, uid: str) -> None:
        study = await self._parts.index.study(uid)
        if study is None or not any(rule.covers(series) for series in study.series):
            return
        patient, issuer, day = (
            (text_values(study.attributes.get(tag_of(name), {})) or [""])[0]
            for name in ("PatientID", "IssuerOfPatientID", "StudyDate")
        )
        if patient:
            await self._add(rule, uid, patient, issuer, day or _today())

    async def _from_orders(self, rules: Sequence[SeriesRule]) -> None:
        began = datetime.now(UTC)
        since = (self._orders_since - _OVERLAP).isoformat(timespec="seconds").replace("+00:00", "Z")
        asked = [("status", "active"), ("_lastUpdated", f"ge{since}"), ("_include", "ServiceRequest:patient")]
        orders, patients = [], {}
        async for resource in self._parts.fhir.search_pages("ServiceRequest", asked):
            if resource["resourceType"] == "Patient":
                patients[f"Patient/{resource['id']}"] = resource
            else:
                orders.append(resource)
        for order in orders:
            modality = _modality(order)
            patient = _dicom_patient(patients.get(str(order.get("subject", {}).get("reference", "")), {}))
            for rule in rules:
                if modality and patient and (not rule.modalities or modality in rule.modalities):
                    await self._add(rule, f"ServiceRequest/{order['id']}", *patient, _today())
        self._orders_since = began

    async def _add(self, rule: SeriesRule, trigger: str, patient: str, issuer: str, day: str) -> None:
        async with self._parts.database.connection() as connection:
            await connection.execute(_ADD, rule.name, trigger, patient, issuer, day)

    async def work_once(self) -> bool:
        """Work on one job that is due; whether there was one."""
        async with self._parts.database.connection() as connection:
            job = await connection.fetchrow(_CLAIM, _LEASE_S)
            if job is None:
                return False
            row = await connection.fetchrow("SELECT * FROM dicomweb.prefetch_rule WHERE name = $1", job["rule_name"])
        source = await self._parts.accounts.find(row["source"]) if row else None
        studies, fault = 0, "the source is gone, or cannot be called"
        try:
            if source is not None and source.address is not None:
                studies, fault = await self._fetch(job, row, source), ""
        except SourceError as error:
            fault = str(error)
        failed = job["attempts"] >= _MOST_ATTEMPTS
        state = "done" if not fault else "failed" if failed else "waiting"
        wait_s = min(5.0 * 2 ** job["attempts"], 3600.0)
        async with self._parts.database.connection() as connection:
            await connection.execute(_END, job["rule_name"], job["trigger"], state, studies, fault or None, wait_s)
        return True

    async def _fetch(self, job: Any, row: Any, source: ApplicationEntity) -> int:
        trace_id = new_trace_id()
        await self._audit(QUERY, "C-FIND", source, trace_id)
        found = await asyncio.to_thread(self._priors, job, row, source)
        known = await self._parts.index.known_studies(found)
        wanted = [uid for uid in found if uid not in known and uid != job["trigger"]][: row["most"]]
        for uid in wanted:
            await self._audit(IMPORT, "C-GET", source, trace_id, uid)
            await asyncio.to_thread(self._get, source, uid)
        return len(wanted)

    def _priors(self, job: Any, row: Any, source: ApplicationEntity) -> list[str]:
        """Study Instance UIDs of earlier studies of the same patient, latest first.

        Raises
        ------
        SourceError
            It could not be asked: that is not "no priors".
        """
        query = prior_query(job["patient_id"], job["before_date"], row["years"])
        rule = rule_of(row, "source")
        context = build_context(StudyRootQueryRetrieveInformationModelFind, list(plain_syntaxes()))
        with associated(self._parts.settings, source, [context]) as association:
            if association is None:
                raise SourceError("no association with the source")
            studies = [one for one in _found(association, query) if _is_of(one, job)]
            fitting = [one for one in studies if _has_series(association, str(one.StudyInstanceUID), rule)]
        fitting.sort(key=lambda one: str(one.get("StudyDate") or ""), reverse=True)
        return [str(one.StudyInstanceUID) for one in fitting]

    def _get(self, source: ApplicationEntity, uid: str) -> None:
        """C-GET one study; what arrives is stored as if the source had sent it.

        Raises
        ------
        SourceError
            Not all of it came.
        """
        classes = _classes()
        contexts = [build_context(StudyRootQueryRetrieveInformationModelGet, list(plain_syntaxes()))]
        contexts += [build_context(one, list(plain_syntaxes())) for one in classes]
        roles = [build_role(one, scp_role=True, scu_role=False) for one in classes]
        query = Dataset()
        query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", uid
        handlers = [(evt.EVT_C_STORE, self._received)]
        with associated(self._parts.settings, source, contexts, roles=roles, handlers=handlers) as association:
            if association is None:
                raise SourceError("no association with the source")
            final = None
            try:
                for answer, _ in association.send_c_get(query, StudyRootQueryRetrieveInformationModelGet):
                    final = int(answer.Status) if "Status" in answer else None
            except (ValueError, RuntimeError) as error:
                raise SourceError("the source offers no C-GET") from error
        if final != status.SUCCESS:
            raise SourceError("not all of a study came" if final is not None else "no answer")

    def _received(self, event: Any) -> int:
        uid, sop_class = str(event.request.AffectedSOPInstanceUID), str(event.request.AffectedSOPClassUID)
        code, _ = self._storing.store(received_file(event.request), sop_class, uid)
        return code

    async def _audit(
        self, kind: tuple[str, str], service: str, source: ApplicationEntity, trace_id: str, study: str | None = None
    ) -> None:
        context = source.as_reader
        entry = dimse_event(
            kind, service, status=200, trace_id=trace_id, context=context, study=study, peer=source.ae_title
        )
        await self._parts.audit.record(entry)


def prior_query(patient_id: str, before: str, years: int) -> Dataset:
    """C-FIND identifier for a patient's studies of the years before a day (YYYYMMDD), that day included."""
    try:
        day = date.fromisoformat(f"{before[:4]}-{before[4:6]}-{before[6:8]}")
    except ValueError:
        day = datetime.now(UTC).date()
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.PatientID = patient_id
    query.StudyDate = f"{day - timedelta(days=round(365.25 * years)):%Y%m%d}-{day:%Y%m%d}"
    query.StudyInstanceUID = query.IssuerOfPatientID = query.ModalitiesInStudy = ""
    return query


def _found(association: Any, query: Dataset) -> list[Dataset]:
    found: list[Dataset] = []
    try:
        for answer, identifier in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
            code = int(answer.Status) if "Status" in answer else None
            if code in (status.PENDING, status.PENDING_WITH_IGNORED_KEYS) and identifier is not None:
                found.append(identifier)
            elif code != status.SUCCESS:
                raise SourceError("the source cannot answer the query")
    except (ValueError, RuntimeError) as error:
        raise SourceError("the source offers no C-FIND") from error
    return found


def _is_of(study: Dataset, job: Any) -> bool:
    """Whether a study is the patient's: the same ID, and an issuer that does not contradict. Matches are checked."""
    issuer = str(study.get("IssuerOfPatientID") or "").strip()
    same = str(study.get("PatientID") or "").strip() == job["patient_id"]
    return same and (not issuer or not job["issuer"] or issuer == job["issuer"])


def _has_series(association: Any, study: str, rule: SeriesRule) -> bool:
    """Whether one series is of the rule's modality and body part."""
    if not rule.modalities and not rule.body_parts:
        return True
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "SERIES", study
    query.SeriesInstanceUID = query.Modality = query.BodyPartExamined = ""
    return any(
        (not rule.modalities or str(one.get("Modality") or "") in rule.modalities)
        and rule.covers_body_part(str(one.get("BodyPartExamined") or ""))
        for one in _found(association, query)
    )


def _classes() -> list[str]:
    """Storage classes proposed for C-GET: as many as fit (128 contexts at most), of the eye none."""
    named = [uid for uid in STORAGE_CLASSES if not any(word in UID(uid).name for word in _OF_THE_EYE)]
    return named[:_MOST_CLASSES]


def _modality(order: dict[str, Any]) -> str:
    codings = [coding for detail in order.get("orderDetail", []) for coding in detail.get("coding", [])]
    return next((str(coding["code"]) for coding in codings if coding.get("system") == systems.DCM), "")


def _dicom_patient(patient: dict[str, Any]) -> tuple[str, str] | None:
    prefix = f"{systems.IDENTIFIER_PATIENT}/"
    for one in patient.get("identifier", []):
        if str(one.get("system", "")).startswith(prefix):
            return str(one["value"]), str(one["system"]).removeprefix(prefix)
    return None


def _today() -> str:
    return f"{datetime.now(UTC):%Y%m%d}"
