"""Stage 3, register: arrivals → study index → one FHIR transaction. Durable first, then tried until it is done.

IHE AIW-I names this role Task Requester; https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.reconciliation.study_truth import StudyTruth, bring_into_line
from dicomweb.study_index import StudyIndex
from foramen.kernel.errors import InteropError
from foramen.kernel.identifiers import derived_uuid
from foramen.kernel.log import get_log

_LEASE_S = 120.0
_FIRST_BACK_OFF_S = 0.5
_LONGEST_BACK_OFF_S = 60.0

_CLAIM = """
    UPDATE dicomweb.arrival SET due_at = now() + make_interval(secs => $1), attempts = attempts + 1
    WHERE study_instance_uid = (SELECT study_instance_uid FROM dicomweb.arrival WHERE due_at <= now()
                                ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING study_instance_uid, trace_id, revision, attempts
"""
_NEXT_DUE = "SELECT extract(epoch FROM min(due_at) - now())::float8 FROM dicomweb.arrival"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One claimed arrival; `revision` tells whether more came while it was worked on."""

    study_instance_uid: str
    trace_id: str
    revision: int
    attempts: int


class Intake:
    """Works through the arrivals in the background."""

    def __init__(self, database: Database, index: StudyIndex, archive: Archive, truth: StudyTruth) -> None:
        self._database, self._index, self._archive, self._truth = database, index, archive, truth
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look at the arrivals now."""
        self._wake.set()

    async def run(self) -> None:
        """Register what arrives, until cancelled."""
        await self._release_leases()
        reconcile = asyncio.create_task(self._reconcile_until_done())
        try:
            while True:
                try:
                    await self._sleep(await self._work_once())
                except InteropError as error:
                    get_log().warning("intake waits", reason=error.message)
                    await self._sleep(2.0)
        finally:
            reconcile.cancel()

    async def _release_leases(self) -> None:
        """What an earlier process had claimed when it was killed is due now, not after its lease."""
        while True:
            try:
                async with self._database.connection() as connection:
                    await connection.execute("UPDATE dicomweb.arrival SET due_at = now() WHERE attempts > 0")
                return
            except InteropError:
                await asyncio.sleep(1.0)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            # Not `wait_for`: before Python 3.12 it can lose a cancellation that comes together with the event.
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _work_once(self) -> float:
        """Work on everything that is due. Returns the seconds until the next arrival is."""
        while (arrival := await self._claim()) is not None:
            await self._process(arrival)
        async with self._database.connection() as connection:
            wait: float | None = await connection.fetchval(_NEXT_DUE)
        return 5.0 if wait is None else min(max(wait, 0.05), 5.0)

    async def _claim(self) -> Arrival | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_CLAIM, _LEASE_S)
        return None if row is None else Arrival(*row)

    async def _process(self, arrival: Arrival) -> None:
        log = get_log().bind(trace_id=arrival.trace_id, study_instance_uid=arrival.study_instance_uid)
        try:
            state = await self.register_study(arrival.study_instance_uid, arrival.trace_id)
        except InteropError as error:
            await self._postpone(arrival, error.issue_code)
            log.warning("registration will be tried again", reason=error.message, attempt=arrival.attempts)
            return
        except Exception:
            # One study that breaks our code must not stop all others; it stays due.
            await self._postpone(arrival, "exception")
            log.exception("registration failed", attempt=arrival.attempts)
            return
        async with self._database.connection() as connection:
            done = "DELETE FROM dicomweb.arrival WHERE study_instance_uid = $1 AND revision = $2"
            await connection.execute(done, arrival.study_instance_uid, arrival.revision)
        log.info("study registered", state=state)

    async def _postpone(self, arrival: Arrival, fault: str) -> None:
        wait_s = min(_FIRST_BACK_OFF_S * 2 ** min(arrival.attempts - 1, 10), _LONGEST_BACK_OFF_S)
        async with self._database.connection() as connection:
            await connection.execute(
                """UPDATE dicomweb.arrival SET due_at = now() + make_interval(secs => $3), last_fault = $4
                   WHERE study_instance_uid = $1 AND revision = $2""",
                *(arrival.study_instance_uid, arrival.revision, wait_s, fault),
            )

    async def register_study(self, study_instance_uid: str, trace_id: str) -> str:
        """Bring index and record up to what the archive holds of a study; returns its state. A replay changes nothing.

        Raises
        ------
        InteropError
            Archive, database or record could not be asked or refused; nothing is half-written.
        """
        return await self._truth.align(study_instance_uid, trace_id)

    async def bring_into_line(self, study_instance_uid: str, trace_id: str) -> str:
        """Bring a study into line after a change of it: see `dicomweb.reconciliation.study_truth.bring_into_line`."""
        return await bring_into_line(self._database, self, study_instance_uid, trace_id)

    async def _reconcile_until_done(self) -> None:
        """At start: what the archive holds and the index does not know is an arrival that got lost."""
        while True:
            try:
                count = await self.reconcile()
            except InteropError:
                await asyncio.sleep(2.0)
                continue
            get_log().info("archive and index compared", count=count)
            return

    async def reconcile(self) -> int:
        """Enqueue the studies the archive holds and the index does not know. Returns how many."""
        uids = [uid async for uid in self._archive.study_uids()]
        count = 0
        for start in range(0, len(uids), 500):
            page = uids[start : start + 500]
            missing = set(page) - await self._index.known_studies(page)
            for uid in sorted(missing):
                await self._index.arrived(uid, _reconcile_trace(uid))
            count += len(missing)
        if count:
            self.wake()
        return count


def _reconcile_trace(study_instance_uid: str) -> str:
    """Trace id of an arrival that nobody announced."""
    return derived_uuid("reconcile", study_instance_uid).hex
