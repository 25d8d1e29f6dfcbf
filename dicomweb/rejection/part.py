"""Rejection as the gateway and the DIMSE process use it: rights first, then one transaction, then what follows of it.

PS3.18 has no transaction for this; the calls are those of dcm4chee and other archives. IHE RAD TF-1 §30 (IOCM).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.instance_header import InstanceHeader
from dicomweb.rejection import changes, deletions, rows
from dicomweb.rejection.carrying_out import CarryingOut
from dicomweb.rejection.changes import Asker, Rejected
from dicomweb.rejection.codes import RejectionCode
from dicomweb.rejection.note import RejectionNote
from dicomweb.rejection.rows import Connection, Fate, Target
from dicomweb.visibility import Visibility
from foramen.kernel.access_context import AccessContext, Reach
from foramen.kernel.errors import ForbiddenError, UpstreamError
from foramen.kernel.settings import Settings

Answer = TypeVar("Answer")
_REJECTED = "SELECT sop_instance_uid FROM dicomweb.rejected_instance WHERE sop_instance_uid = ANY($1::text[])"


def require_right(context: AccessContext, action: str) -> None:
    """Refuse whoever may not change images: ``u`` rejects and restores, ``d`` deletes.

    Raises
    ------
    ForbiddenError
        No scope grants it on all of ImagingStudy; a patient's scope never does.
    """
    if context.reach("ImagingStudy", action) is not Reach.EVERYTHING:
        raise ForbiddenError("Only a scope for all images grants this")


class Rejections:
    """Rejects, restores and deletes."""

    def __init__(
        self, settings: Settings, database_url: str, database: Database, visibility: Visibility, archive: Archive
    ) -> None:
        self._settings, self._url, self._visibility = settings, database_url, visibility
        self._database = database
        self.carrying_out = CarryingOut(settings, database, archive, self._write)

    async def reject(
        self, context: AccessContext, target: Target, code: RejectionCode, reason: str, trace_id: str
    ) -> Rejected:
        """Reject what a URL names; its note goes to the archive at once, or as soon as that answers.

        Raises
        ------
        ForbiddenError, NotFoundError, ConflictError
            See `require_right` and `changes.reject`.
        """
        require_right(context, "u")
        asker = await self._asker(context, trace_id)
        done = await self._write(
            lambda connection: changes.reject(connection, asker, target, code, reason, self._settings)
        )
        await self.carrying_out.store_notes_now()
        return done

    async def accept_note(
        self, context: AccessContext, header: InstanceHeader, note: RejectionNote, content: bytes, trace_id: str
    ) -> Rejected:
        """Do what a received note says, and keep the note; acknowledged when the database holds both.

        Raises
        ------
        ForbiddenError, ConflictError
            See `require_right` and `changes.accept_note`.
        """
        require_right(context, "u")
        asker = await self._asker(context, trace_id)
        done = await self._write(
            lambda connection: changes.accept_note(connection, asker, header, note, content, self._settings)
        )
        await self.carrying_out.store_notes_now()
        return done

    async def come_again(self, context: AccessContext | None, uids: Sequence[str]) -> dict[str, Fate]:
        """Say which of some instances that are sent are rejected; see `changes.come_again`.

        Parameters
        ----------
        context : who sends them; None: we fetched them ourselves
        """
        async with self._database.connection() as connection:  # Nearly always: none of them.
            if await connection.fetchval(_REJECTED, list(uids)) is None:
                return {}
        who = context or AccessContext("foramen", "dicomweb", ())
        return await self._write(lambda connection: changes.come_again(connection, uids, who))

    async def hidden(self, uids: Sequence[str]) -> set[str]:
        """Return which of some instances are rejected."""
        async with self._database.connection() as connection:
            return {row[0] for row in await connection.fetch(_REJECTED, list(uids))}

    async def results_follow(self, study: str) -> int:
        """Reject results of ours whose sources were rejected before they came."""
        return await self._write(lambda connection: changes.results_follow(connection, study))

    async def restore(self, context: AccessContext, target: Target, trace_id: str) -> int:
        """Take back the rejection of what a URL names; returns how many instances count again.

        Raises
        ------
        ForbiddenError, NotFoundError, ConflictError
            See `require_right` and `changes.restore`.
        """
        require_right(context, "u")
        asker = await self._asker(context, trace_id)
        return await self._write(lambda connection: changes.restore(connection, asker, target))

    async def delete(self, context: AccessContext, target: Target, code: RejectionCode | None, trace_id: str) -> bool:
        """Delete for good; with a code what is not rejected yet is rejected in the same transaction.

        Returns
        -------
        Whether it is done; else it is done as soon as the archive answers.

        Raises
        ------
        ForbiddenError, NotFoundError, ConflictError
            See `require_right` and `deletions.intend`.
        """
        require_right(context, "d")
        if code is not None:
            require_right(context, "u")
        asker = await self._asker(context, trace_id, "d")

        def work(connection: Connection) -> int:
            if code is not None and rows.counted(connection, target, asker.visible):
                changes.reject(connection, asker, target, code, "", self._settings)
            return deletions.intend(connection, asker, target, self._settings)

        number = await self._write(work)
        return await self.carrying_out.delete_now(number)

    async def _asker(self, context: AccessContext, trace_id: str, action: str = "u") -> Asker:
        visible = await self._visibility.visible(context, action, start=rows.FIRST_PLACE)
        return Asker(context, visible, trace_id)

    async def _write(self, work: Callable[[Connection], Answer]) -> Answer:
        """Run one transaction in a thread.

        Raises
        ------
        UpstreamError
            The database does not answer: nothing was changed, or what was is known when it does again.
        """

        def transaction() -> Answer:
            with psycopg.connect(self._url, connect_timeout=5) as connection:
                return work(connection)

        try:
            return await asyncio.to_thread(transaction)
        except psycopg.OperationalError as exc:
            raise UpstreamError("The database does not answer", headers={"Retry-After": "5"}) from exc
