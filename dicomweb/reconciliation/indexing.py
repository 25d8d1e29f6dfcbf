"""Brings the rows of one study into line with the archive: late, changed, moved and lost instances.

What the archive shows is followed at once, but for instances that went without our doing: they wait for a person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.instance_header import InstanceHeader, MalformedInstanceError, read_header
from dicomweb.reconciliation import rows
from dicomweb.reconciliation.comparison import Archived, Comparison, compare
from dicomweb.reconciliation.drifts import Finding, mended
from dicomweb.reconciliation.headers import headers_in
from dicomweb.reconciliation.kinds import DUPLICATE, HEADER_CHANGED, MISSING, MOVED, PATIENT_CHANGED, UNREADABLE
from dicomweb.reconciliation.levels import Identity, make_anew
from dicomweb.study_index import add_rows
from foramen.kernel.errors import NotFoundError
from foramen.kernel.log import get_log

_BATCH = 50
_PARALLEL_READS = 4
Forget = Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class Outcome:
    """What became of a study's rows.

    Parameters
    ----------
    waiting : what a person has to see to
    identities : Patient IDs with issuers that its files name, when they were looked at
    withdrawn_through_us : whether instances of it were rejected or deleted through us
    archived : how many files the archive has of it
    """

    waiting: list[Finding] = field(default_factory=list)
    identities: list[Identity] = field(default_factory=list)
    withdrawn_through_us: bool = False
    archived: int = 0


class Indexing:
    """Follows the archive, study by study."""

    def __init__(
        self, database: Database, archive: Archive, forget: Forget | None = None, storage: Path | None = None
    ) -> None:
        self._database, self._archive, self._forget, self._storage = database, archive, forget, storage

    async def follow(self, study: str, trace_id: str) -> Outcome:
        """Bring the rows of a study into line.

        Raises
        ------
        InteropError
            Archive or database could not be asked: what was done stays done, and is right.
        """
        # The index first: what it holds now, the archive has to hold after.
        async with self._database.connection() as connection:
            known = await rows.indexed(connection, study)
            withdrawn = await rows.withdrawn(connection, study)
        archived = [Archived(*item) for item in await self._archive.study_contents(study)]
        plan = compare(archived, known, {uid for uid, orthanc_id in withdrawn.items() if orthanc_id is not None})
        outcome = Outcome(withdrawn_through_us=bool(withdrawn), archived=len(archived))
        moved, twice = await self._from_elsewhere(study, plan.new)
        duplicates = sorted({*plan.duplicates, *twice})
        outcome.waiting += [Finding(DUPLICATE, duplicates)] if duplicates else []
        unreadable = await self._index(study, plan, moved, twice, trace_id)
        outcome.waiting += [Finding(UNREADABLE, unreadable)] if unreadable else []
        lost = await self._lost(study, plan.missing, trace_id)
        outcome.waiting += [Finding(MISSING, lost)] if lost else []
        await self._finish(study, plan, moved, outcome, trace_id)
        return outcome

    async def _from_elsewhere(self, study: str, new: Sequence[Archived]) -> tuple[dict[str, str], set[str]]:
        """Which new instances another study has rows of: those that moved, with that study, and those that stand twice.

        Of one SOP Instance UID the index holds one row.
        """
        if not new:
            return {}, set()
        async with self._database.connection() as connection:
            found = await rows.elsewhere(connection, [item.sop_instance_uid for item in new], study)
        moved, twice = {}, set()
        for uid, other, orthanc_id in found:
            if orthanc_id in await self._archive.find_instance(uid):
                twice.add(uid)
            else:
                moved[uid] = other
        return moved, twice

    async def _index(
        self, study: str, plan: Comparison, moved: dict[str, str], twice: set[str], trace_id: str
    ) -> list[str]:
        """Read the headers of what is new or changed, and make their rows; returns what cannot be read."""
        todo = [item for item in plan.new + plan.replaced if item.sop_instance_uid not in twice]
        replaced = {item.sop_instance_uid for item in plan.replaced}
        unreadable: list[str] = []
        limit = asyncio.Semaphore(_PARALLEL_READS)

        async def header(item: Archived, local: InstanceHeader | None) -> tuple[InstanceHeader, Archived] | None:
            self._archive.forget(item.orthanc_id)
            if local is not None:
                return local, item
            async with limit:
                try:
                    content = await self._archive.read(item.orthanc_id, keep=False)
                    return await asyncio.to_thread(read_header, content), item
                except MalformedInstanceError:
                    unreadable.append(item.sop_instance_uid)
                    get_log().warning("instance cannot be indexed", study_instance_uid=study)
                except NotFoundError:  # It went again: the next comparison sees it.
                    get_log().info("instance went while it was read", study_instance_uid=study)
                return None

        for start in range(0, len(todo), _BATCH):
            batch = todo[start : start + _BATCH]
            here = await asyncio.to_thread(headers_in, self._storage, batch) if self._storage is not None else {}
            found = await asyncio.gather(*(header(item, here.get(item.attachment)) for item in batch))
            read = [pair for pair in found if pair is not None]
            async with self._database.connection() as connection, connection.transaction():
                uids = {item.sop_instance_uid for _, item in read}
                gone = await rows.remove(connection, study, sorted(uids & replaced))
                await _take_from_others(connection, {uid: moved[uid] for uid in uids & set(moved)}, trace_id)
                await add_rows(connection, [(one, item.orthanc_id) for one, item in read])
                await rows.note_files(connection, (item for _, item in read))
            for orthanc_id in gone:
                await self._forgotten(orthanc_id)
        return sorted(unreadable)

    async def _forgotten(self, orthanc_id: str) -> None:
        if self._forget is not None:
            await self._forget(orthanc_id)

    async def _lost(self, study: str, missing: Sequence[str], trace_id: str) -> list[str]:
        """Which instances the archive has nowhere; of those that moved, the study they moved to is looked at."""
        lost: list[str] = []
        others: set[str] = set()
        for uid in missing:
            found = await self._archive.find_instance(uid)
            if not found:
                lost.append(uid)
            others.update([other for one in found if (other := await self._archive.study_of(one)) is not None])
        if others - {study}:
            async with self._database.connection() as connection, connection.transaction():
                for other in sorted(others - {study}):
                    await rows.note_change(connection, other, trace_id)
        return lost

    async def _finish(
        self, study: str, plan: Comparison, moved: dict[str, str], outcome: Outcome, trace_id: str
    ) -> None:
        """Make the levels anew where instances were replaced, and say what was mended."""
        async with self._database.connection() as connection, connection.transaction():
            await rows.note_files(connection, plan.unnoted)
            await rows.remove(connection, study, plan.withdrawn)
            conflict = await connection.fetchval(
                "SELECT patient_conflict FROM dicomweb.study WHERE study_instance_uid = $1", study
            )
            if not (plan.replaced or plan.withdrawn or moved or conflict):
                return
            outcome.identities, changed = await make_anew(connection, study)
            rewritten = [item.sop_instance_uid for item in plan.rewritten]
            renamed = [item.sop_instance_uid for item in plan.renamed]
            arrived = sorted({*moved, *([] if changed else renamed)})
            found = [
                *([Finding(PATIENT_CHANGED, sorted(renamed + rewritten))] if changed else []),
                *([Finding(HEADER_CHANGED, sorted(rewritten))] if rewritten and not changed else []),
                *([Finding(MOVED, arrived)] if arrived else []),
            ]
            await mended(connection, study, found, trace_id)


async def _take_from_others(connection: Any, moved: dict[str, str], trace_id: str) -> None:
    """Remove instances from the studies they moved away from; those are brought into line after."""
    for other in sorted(set(moved.values())):
        await rows.remove(connection, other, sorted(uid for uid, study in moved.items() if study == other))
        await make_anew(connection, other)
        await rows.note_change(connection, other, trace_id)
