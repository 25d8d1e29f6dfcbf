"""When images of a study were last read: noted in memory from the audit events, written in batches, to the hour.

No request waits for it and none asks the database for it: of frames one audit event a second passes here at most
(`audit_windows.py`). What a killed process had not written yet is at most a minute of accesses.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from dicomweb.database import Database
from foramen.kernel.errors import InteropError
from foramen.kernel.log import get_log

WRITE_EVERY_S = 60.0
PRECISION_S = 3600.0
_OF_PEERS = frozenset(("C-GET", "C-MOVE"))
_WRITE = """INSERT INTO dicomweb.study_access AS known (study_instance_uid, accessed_at)
    SELECT study_instance_uid, now() FROM dicomweb.study WHERE study_instance_uid = ANY($1::text[])
    ORDER BY study_instance_uid
    ON CONFLICT (study_instance_uid) DO UPDATE SET accessed_at = EXCLUDED.accessed_at
    WHERE known.accessed_at <= EXCLUDED.accessed_at - make_interval(secs => $2)"""


def study_read(event: dict[str, Any]) -> str | None:
    """Return the Study Instance UID of which an AuditEvent says that images or metadata were given; else None. Pure."""
    code = event["subtype"][0]["code"]
    if event["outcome"] != "0" or not (code.startswith("retrieve") or code in _OF_PEERS):
        return None
    for entity in event["entity"]:
        name = str(entity.get("what", {}).get("identifier", {}).get("value", ""))
        if name.startswith("urn:oid:"):
            return name.removeprefix("urn:oid:")
    return None


class LastAccess:
    """Gathers accesses, and writes each study at most once an hour."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: set[str] = set()
        self._written: dict[str, float] = {}

    def note(self, event: dict[str, Any]) -> None:
        """Take an audit event that is durable."""
        study = study_read(event)
        if study is not None and study not in self._written:
            self._pending.add(study)

    async def flush(self) -> int:
        """Write what is pending in one statement; returns how many studies.

        Raises
        ------
        UpstreamError
            The database does not answer: they stay pending.
        """
        now = time.monotonic()
        self._written = {study: at for study, at in self._written.items() if now - at < PRECISION_S}
        pending = sorted(self._pending)
        if not pending:
            return 0
        async with self._database.connection() as connection:
            await connection.execute(_WRITE, pending, PRECISION_S)
        self._pending.difference_update(pending)
        self._written.update(dict.fromkeys(pending, now))
        return len(pending)

    async def run(self) -> None:
        """Write once a minute, and when it is cancelled."""
        try:
            while True:
                await asyncio.sleep(WRITE_EVERY_S)
                await self._try()
        finally:
            await self._try()

    async def _try(self) -> None:
        try:
            await self.flush()
        except InteropError as error:
            get_log().warning("accesses are written later", reason=error.message)
