"""Rejection notes among what is forwarded: hidden from every query, they go to whom the rejected instances were sent.

IHE RAD TF-2 §4.66 (Rejection Note Stored). `dicomweb.rejection.carrying_out` makes the jobs.
"""

from __future__ import annotations

from collections.abc import Collection

from pydicom.uid import ExplicitVRLittleEndian

from dicomweb.database import Database
from dicomweb.dimse.items import Item
from dicomweb.rejection.note import SOP_CLASS

_NOTES = """SELECT study_instance_uid, series_instance_uid, sop_instance_uid, orthanc_id,
        coalesce(transfer_syntax_uid, $3)
    FROM dicomweb.rejected_instance
    WHERE study_instance_uid = $1 AND sop_instance_uid = ANY($2::text[]) AND is_note AND orthanc_id IS NOT NULL"""


async def notes_to_send(database: Database, study: str, uids: Collection[str]) -> list[Item]:
    """Return the rejection notes among some instances of a study."""
    async with database.connection() as connection:
        rows = await connection.fetch(_NOTES, study, list(uids), str(ExplicitVRLittleEndian))
    return [Item(row[0], row[1], row[2], SOP_CLASS, row[3], row[4]) for row in rows]
