"""What the study index knows already of the instances that a request delivers; nothing of it goes to a client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dicomweb.database import Database

_STUDIES = """SELECT study_instance_uid, attributes || coalesce(as_stored, '{}') FROM dicomweb.study
    WHERE study_instance_uid = ANY($1::text[])"""
_INSTANCES = "SELECT sop_instance_uid, orthanc_id FROM dicomweb.instance WHERE sop_instance_uid = ANY($1::text[])"


class Known:
    """Look-ups for many instances at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def studies(self, study_instance_uids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Study level (DICOM JSON model) of each study that the index holds, as its files have it."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_STUDIES, list(study_instance_uids))
        return {row[0]: row[1] for row in rows}

    async def instances(self, sop_instance_uids: Sequence[str]) -> dict[str, str]:
        """Orthanc id of each instance that the index holds."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_INSTANCES, list(sop_instance_uids))
        return {row[0]: row[1] for row in rows}
