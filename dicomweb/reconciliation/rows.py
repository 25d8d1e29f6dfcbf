"""Rows of the index that the comparison of one study reads, removes and makes anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dicomweb.reconciliation.comparison import Archived, Indexed

_INDEXED = """SELECT i.orthanc_id, i.sop_instance_uid, f.attachment::text
    FROM dicomweb.instance i LEFT JOIN dicomweb.indexed_file f USING (orthanc_id) WHERE i.study_instance_uid = $1"""
_WITHDRAWN = "SELECT sop_instance_uid, orthanc_id FROM dicomweb.rejected_instance WHERE study_instance_uid = $1"
_ELSEWHERE = """SELECT sop_instance_uid, study_instance_uid, orthanc_id FROM dicomweb.instance
    WHERE sop_instance_uid = ANY($1::text[]) AND study_instance_uid <> $2"""
_NOTE = """INSERT INTO dicomweb.indexed_file (orthanc_id, attachment) SELECT * FROM unnest($1::text[], $2::uuid[])
    ON CONFLICT (orthanc_id) DO UPDATE SET attachment = EXCLUDED.attachment"""
_REMOVE = """WITH gone AS (DELETE FROM dicomweb.instance WHERE study_instance_uid = $1
        AND sop_instance_uid = ANY($2::text[]) RETURNING orthanc_id),
    noted AS (DELETE FROM dicomweb.indexed_file WHERE orthanc_id IN (SELECT orthanc_id FROM gone)),
    located AS (DELETE FROM dicomweb.instance_file WHERE orthanc_id IN (SELECT orthanc_id FROM gone))
    SELECT orthanc_id FROM gone"""
_CHANGED = """INSERT INTO dicomweb.arrival (study_instance_uid, trace_id) VALUES ($1, $2)
    ON CONFLICT (study_instance_uid) DO UPDATE SET revision = dicomweb.arrival.revision + 1, attempts = 0,
        due_at = CASE WHEN dicomweb.arrival.attempts = 0 THEN greatest(dicomweb.arrival.due_at, now()) ELSE now() END"""


async def indexed(connection: Any, study: str) -> list[Indexed]:
    """Return the index's instances of a study, with the files their rows were made of."""
    return [Indexed(row[0], row[1], row[2]) for row in await connection.fetch(_INDEXED, study)]


async def withdrawn(connection: Any, study: str) -> dict[str, str | None]:
    """Return the instances of a study that were rejected or deleted through us, with their Orthanc ids.

    None: its file is not there (deleted, or announced by a rejection note). Should one come, it is given to the index,
    which decides (`dicomweb.rejection`).
    """
    return {row[0]: row[1] for row in await connection.fetch(_WITHDRAWN, study)}


async def elsewhere(connection: Any, uids: Sequence[str], study: str) -> list[tuple[str, str, str]]:
    """Return (SOP Instance UID, Study Instance UID, Orthanc id) of rows that other studies hold."""
    return [(row[0], row[1], row[2]) for row in await connection.fetch(_ELSEWHERE, list(uids), study)]


async def note_files(connection: Any, items: Iterable[Archived]) -> None:
    """Note of which file each row was made."""
    found = list(items)
    if found:
        await connection.execute(_NOTE, [item.orthanc_id for item in found], [item.attachment for item in found])


async def remove(connection: Any, study: str, uids: Sequence[str]) -> list[str]:
    """Remove instances from the index, in the caller's transaction; returns their Orthanc ids."""
    if not uids:
        return []
    return [row[0] for row in await connection.fetch(_REMOVE, study, list(uids))]


async def note_change(connection: Any, study_instance_uid: str, trace_id: str) -> None:
    """Record in the caller's transaction that a study changed: it is brought into line, whatever happens after.

    A study that is being received keeps its time: it would be registered half.
    """
    await connection.execute(_CHANGED, study_instance_uid, trace_id)
