"""Store and forward: what a rule names goes to its destination, instance by instance, until each was acknowledged.

DICOM PS3.4 Annex B (as SCU). A job is a row before it is tried; a kill loses none, and may send one instance twice.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any

from pydicom import dcmread

from dicomweb.background import work_through
from dicomweb.dimse.application_entity import ApplicationEntity
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.events import BEGIN, TRANSFERRED, dimse_event
from dicomweb.dimse.items import Item, readable
from dicomweb.dimse.outgoing import associated
from dicomweb.dimse.parts import Parts
from dicomweb.dimse.rejection_notes import notes_to_send
from dicomweb.dimse.rules import SeriesRule, rule_of
from dicomweb.dimse.transfer_syntax import NoTransferSyntaxError, fitted, proposed
from foramen.kernel.errors import InteropError
from foramen.kernel.identifiers import new_trace_id

_IDLE_S = 1.0
_OVERLAP = timedelta(seconds=60)
_LEASE_S = 600.0
_BATCH = 200
_FIRST_BACK_OFF_S = 5.0
_LONGEST_BACK_OFF_S = 3600.0
_RULES = "SELECT * FROM dicomweb.forward_rule WHERE active ORDER BY name"
_STUDIES = """SELECT study_instance_uid, updated_at FROM dicomweb.study
    WHERE updated_at > $1 AND NOT patient_conflict ORDER BY updated_at LIMIT 500"""
_ADD = """INSERT INTO dicomweb.forward_job (rule_name, study_instance_uid, series_instance_uid, sop_instance_uid)
    SELECT $1, $2, * FROM unnest($3::text[], $4::text[]) ON CONFLICT DO NOTHING"""
_CLAIM = """UPDATE dicomweb.forward_job SET attempts = attempts + 1, due_at = now() + make_interval(secs => $1)
    WHERE (rule_name, sop_instance_uid) IN (
        SELECT rule_name, sop_instance_uid FROM dicomweb.forward_job
        WHERE state = 'waiting' AND due_at <= now() AND (rule_name, study_instance_uid) = (
            SELECT rule_name, study_instance_uid FROM dicomweb.forward_job
            WHERE state = 'waiting' AND due_at <= now() ORDER BY due_at LIMIT 1)
        ORDER BY sop_instance_uid LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING rule_name, study_instance_uid, sop_instance_uid, attempts"""
_SENT = """UPDATE dicomweb.forward_job SET state = 'sent', sent_at = now(), status = $3, last_fault = NULL
    WHERE rule_name = $1 AND sop_instance_uid = $2"""
_AGAIN = """UPDATE dicomweb.forward_job SET state = $3, due_at = now() + make_interval(secs => $4), status = $5,
    last_fault = $6 WHERE rule_name = $1 AND sop_instance_uid = $2"""


class Forwarding:
    """Finds what has to go out, and sends it."""

    def __init__(self, parts: Parts, bridge: Bridge) -> None:
        self._parts, self._bridge = parts, bridge
        self._seen: dict[str, datetime] = {}

    async def run(self) -> None:
        """Work, until cancelled."""
        await work_through("forwarding", self._round, _IDLE_S, 5 * _IDLE_S)

    async def _round(self) -> bool:
        await self.find_work()
        return await self.work_once()

    async def find_work(self) -> None:
        """Make a job of each instance that a rule covers and that has none; late instances of a study too."""
        async with self._parts.database.connection() as connection:
            rules = [rule_of(row, "destination") for row in await connection.fetch(_RULES)]
        for rule in rules:
            # Overlapping: a registration's transaction may become visible later than its time says.
            since = max(self._seen.get(rule.name, rule.since) - _OVERLAP, rule.since)
            async with self._parts.database.connection() as connection:
                studies = await connection.fetch(_STUDIES, since)
            for row in studies:
                await self._enqueue(rule, row["study_instance_uid"])
                self._seen[rule.name] = row["updated_at"]

    async def _enqueue(self, rule: SeriesRule, study_uid: str) -> None:
        study = await self._parts.index.study(study_uid)
        if study is None:
            return
        pairs = [
            (series.series_instance_uid, uid)
            for series in study.series
            if rule.covers(series)
            for uid in series.sop_instance_uids
        ]
        if pairs:
            async with self._parts.database.connection() as connection:
                await connection.execute(
                    _ADD, rule.name, study_uid, [one for one, _ in pairs], [uid for _, uid in pairs]
                )

    async def work_once(self) -> bool:
        """Send what is due of one study to one destination; whether there was anything."""
        async with self._parts.database.connection() as connection:
            jobs = await connection.fetch(_CLAIM, _LEASE_S, _BATCH)
            if not jobs:
                return False
            query = "SELECT destination FROM dicomweb.forward_rule WHERE name = $1"
            title = await connection.fetchval(query, jobs[0]["rule_name"])
        destination = await self._parts.accounts.find(title or "")
        if destination is None or destination.address is None:
            await self._postpone(jobs, None, "the destination is gone, or cannot be called")
            return True
        study, trace_id = jobs[0]["study_instance_uid"], new_trace_id()
        wanted = {job["sop_instance_uid"]: job for job in jobs}
        # What the destination's institution does not reach is not sent to it, whatever the rule says.
        items = await readable(self._parts, destination.as_reader, study, None, set(wanted))
        items += await notes_to_send(self._parts.database, study, set(wanted))
        missing = [job for uid, job in wanted.items() if uid not in {item.sop_instance_uid for item in items}]
        await self._postpone(missing, None, "not among what the destination may see")
        if items:
            await self._audit(BEGIN, destination, study, trace_id, 200, len(items))
            sent = await asyncio.to_thread(self._send, destination, items, wanted)
            await self._audit(TRANSFERRED, destination, study, trace_id, 200 if sent == len(items) else 503, sent)
        return True

    def _send(self, destination: ApplicationEntity, items: list[Item], jobs: dict[str, Any]) -> int:
        """Send over one association; every answer is a row before the next instance. Returns how many were taken."""
        contexts = proposed((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
        sent = 0
        with associated(self._parts.settings, destination, contexts) as association:
            for item in items:
                job = jobs[item.sop_instance_uid]
                if association is None or not association.is_established:
                    self._bridge.run(self._postpone([job], None, "no association"))
                    continue
                code, fault = self._store(association, item)
                if code is not None and (code == 0 or code >> 12 == 0xB):
                    sent += 1
                    self._bridge.run(self._note_sent(job, code))
                else:
                    self._bridge.run(self._postpone([job], code, fault))
        return sent

    def _store(self, association: Any, item: Item) -> tuple[int | None, str]:
        try:
            content = self._bridge.run(self._parts.archive.read(item.orthanc_id, keep=False))
            dataset = fitted(dcmread(BytesIO(content)), association.accepted_contexts)
            answer = association.send_c_store(dataset)
        except NoTransferSyntaxError:
            return None, "no transfer syntax that it accepts"
        except InteropError as error:
            return None, error.message
        except (ValueError, RuntimeError, AttributeError) as error:
            return None, type(error).__name__
        if "Status" not in answer:
            return None, "no answer"
        return int(answer.Status), "refused by the destination"

    async def _note_sent(self, job: Any, code: int) -> None:
        async with self._parts.database.connection() as connection:
            await connection.execute(_SENT, job["rule_name"], job["sop_instance_uid"], code)

    async def _postpone(self, jobs: list[Any], code: int | None, fault: str) -> None:
        most = self._parts.settings.dimse_forward_attempts
        async with self._parts.database.connection() as connection:
            for job in jobs:
                wait_s = min(_FIRST_BACK_OFF_S * 2 ** min(job["attempts"] - 1, 12), _LONGEST_BACK_OFF_S)
                state = "waiting" if job["attempts"] < most else "failed"
                await connection.execute(_AGAIN, job["rule_name"], job["sop_instance_uid"], state, wait_s, code, fault)

    async def _audit(
        self, kind: tuple[str, str], peer: ApplicationEntity, study: str, trace_id: str, outcome: int, count: int
    ) -> None:
        patient = await self._parts.index.patient_of(study)
        entry = dimse_event(
            kind,
            "C-STORE",
            status=outcome,
            trace_id=trace_id,
            context=peer.as_reader,
            study=study,
            patient=patient,
            peer=peer.ae_title,
            count=count,
        )
        await self._parts.audit.record(entry)
