"""What follows a rejection or an intent to delete: notes into the archive and on to others, files out of it.

Every piece is a row before it is tried and may be done twice; at the gateway's start what a kill left is taken up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from dicomweb.archive import Archive
from dicomweb.background import work_through
from dicomweb.database import Database
from dicomweb.lifecycle.nearline import Nearline
from dicomweb.lifecycle.unpacking import bucket_if_set
from dicomweb.rejection import deletions
from dicomweb.rejection.deletions import WAITS_FOR_FORWARDING, Deletion
from foramen.kernel.errors import InteropError, NotFoundError
from foramen.kernel.log import get_log
from foramen.kernel.settings import Settings

_IDLE_S = 2.0
_LEASE_S = 300.0
_LONGEST_BACK_OFF_S = 600.0
_FORWARD_WAIT_S = 5.0
_FORWARD_EVERY_S = 10.0
_WAITING_NOTES = "SELECT id, note_uid, note FROM dicomweb.rejection WHERE note IS NOT NULL ORDER BY id LIMIT 20"
_NOTE_STORED = """WITH stored AS (UPDATE dicomweb.rejected_instance SET orthanc_id = $2
        WHERE sop_instance_uid = $3 AND is_note)
    UPDATE dicomweb.rejection SET note = NULL WHERE id = $1"""
_FORWARD = """INSERT INTO dicomweb.forward_job (rule_name, study_instance_uid, series_instance_uid, sop_instance_uid)
    SELECT q.name, n.study_instance_uid, n.series_instance_uid, n.sop_instance_uid
    FROM dicomweb.rejection j
    JOIN dicomweb.rejected_instance n ON n.rejection = j.id AND n.is_note AND n.orthanc_id IS NOT NULL
        AND n.deletion IS NULL
    CROSS JOIN dicomweb.forward_rule q
    WHERE j.rejected_at > now() - interval '1 day' AND EXISTS (
        SELECT 1 FROM dicomweb.rejected_instance r
        JOIN dicomweb.forward_job f ON (f.rule_name, f.sop_instance_uid) = (q.name, r.sop_instance_uid)
        WHERE r.rejection = j.id AND NOT r.is_note AND f.state = 'sent')
    ON CONFLICT DO NOTHING"""
Write = Callable[[Callable[[Any], Any]], Awaitable[Any]]


class CarryingOut:
    """Works through what is written.

    Parameters
    ----------
    write : runs one transaction (psycopg) and returns what it returns
    """

    def __init__(self, settings: Settings, database: Database, archive: Archive, write: Write) -> None:
        self._settings, self._database, self._archive, self._write = settings, database, archive, write
        self._one_at_a_time = asyncio.Lock()
        self._forwarded_at = 0.0

    async def run(self) -> None:
        """Work, until cancelled."""
        await self._release_leases()
        await work_through("rejection", self.work_once, _IDLE_S, 2 * _IDLE_S)

    async def work_once(self) -> bool:
        """Store the notes that wait, forward them, and work on one deletion that is due; whether there was one."""
        await self.store_notes()
        if time.monotonic() - self._forwarded_at > _FORWARD_EVERY_S:
            self._forwarded_at = time.monotonic()
            async with self._database.connection() as connection:
                await connection.execute(_FORWARD)
        async with self._one_at_a_time:
            deletion: Deletion | None = await self._write(lambda connection: deletions.claim(connection, _LEASE_S))
            if deletion is None:
                return False
            await self._try(deletion)
        return True

    async def store_notes_now(self) -> None:
        """Store the notes that wait, if the archive answers; else it is done later."""
        try:
            await self.store_notes()
        except InteropError as error:
            get_log().warning("a rejection note waits", reason=error.message)

    async def store_notes(self) -> None:
        """Store the notes that wait.

        Raises
        ------
        InteropError
            Archive or database do not answer.
        """
        async with self._database.connection() as connection:
            waiting = await connection.fetch(_WAITING_NOTES)
        for row in waiting:
            stored = await self._archive.store(row["note"])
            if stored is None:  # A note of somebody else's that the archive cannot read; the rejection stands.
                get_log().error("a rejection note cannot be stored", note=row["note_uid"])
            async with self._database.connection() as connection:
                await connection.execute(_NOTE_STORED, row["id"], stored[0] if stored else None, row["note_uid"])

    async def delete_now(self, number: int) -> bool:
        """Work on one intent at once; whether it is done."""
        async with self._one_at_a_time:
            deletion: Deletion | None = await self._write(
                lambda connection: deletions.claim(connection, _LEASE_S, number)
            )
            return deletion is not None and await self._try(deletion)

    async def _try(self, deletion: Deletion) -> bool:
        try:
            return await self._delete(deletion)
        except InteropError as error:
            fault, wait_s = error.message, min(2.0**deletion.attempts, _LONGEST_BACK_OFF_S)
            get_log().warning("a deletion will be tried again", reason=fault, study_instance_uid=deletion.study)
            await self._write(lambda connection: deletions.postpone(connection, deletion, wait_s, fault))
        return False

    async def _delete(self, deletion: Deletion) -> bool:
        await self.store_notes()
        waiting = await self._write(lambda connection: deletions.files(connection, deletion))
        now = [one for one in waiting if not one.waits]
        await self._out_of_the_archive(deletion.study, {one.sop_instance_uid for one in now})
        await self._write(lambda connection: self._sweep(connection, deletion.study))
        uids = [one.sop_instance_uid for one in now]
        known = [one.orthanc_id for one in now if one.orthanc_id]
        done: bool = await self._write(lambda connection: deletions.emptied(connection, deletion, uids, known))
        if not done:
            wait_s, fault = _FORWARD_WAIT_S, WAITS_FOR_FORWARDING
            await self._write(lambda connection: deletions.postpone(connection, deletion, wait_s, fault))
        return done

    async def _out_of_the_archive(self, study: str, uids: set[str]) -> None:
        """Delete the files of instances, under whatever id they stand by now: a corrected patient changes it."""
        for orthanc_id, uid, _ in await self._archive.study_contents(study):
            if uid in uids:
                with contextlib.suppress(NotFoundError):
                    await self._archive.delete(orthanc_id)

    def _sweep(self, connection: psycopg.Connection[Any], study: str) -> None:
        """Remove the study's copies in the nearline folder that nothing links to any more."""
        online = (self._settings.orthanc_storage or self._settings.home / "orthanc" / "storage").absolute()
        folder = self._settings.nearline_folder
        if folder is not None and folder.is_dir() and online.is_dir():
            Nearline(connection, online, folder, bucket=bucket_if_set(self._settings)).sweep(study)

    async def _release_leases(self) -> None:
        """What an earlier process was at when it was killed is due now, not after its lease."""
        while True:
            try:
                async with self._database.connection() as connection:
                    query = "UPDATE dicomweb.deletion SET due_at = now() WHERE finished_at IS NULL"
                    await connection.execute(query)
                return
            except InteropError:
                await asyncio.sleep(1.0)
