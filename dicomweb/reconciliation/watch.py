"""The background light pass: what changed in the record, and a slow round through the archive.

The archive tells of new and changed studies itself (the notify plug-in follows its change log). It logs no deletions
(Orthanc's `Deleted` changes go to plug-ins alone), so the round compares counts, a few studies at a time. The record is
followed by the histories of Patient and ImagingStudy since the last look. https://hl7.org/fhir/R4/http.html#history
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.reconciliation.rows import note_change
from dicomweb.registration import recorded_hash
from foramen.kernel.errors import InteropError
from foramen.kernel.fhir_client import FhirClient, next_cursor
from foramen.kernel.identifiers import derived_uuid
from foramen.kernel.log import get_log
from terminology import systems

_OVERLAP = timedelta(seconds=60)
"""Read again each time: differences of clocks, and writes that were committed late."""
_PAGE = "500"
_STUDIES_A_ROUND = 50
_SINCE = "SELECT position FROM dicomweb.followed WHERE source = $1"
_KEEP = """INSERT INTO dicomweb.followed (source, position) VALUES ($1, $2)
    ON CONFLICT (source) DO UPDATE SET position = EXCLUDED.position"""
_OF_PATIENTS = """SELECT study_instance_uid FROM dicomweb.study WHERE patient_ref = ANY($1::text[])
    UNION SELECT study_instance_uid FROM dicomweb.study WHERE patient_id = ANY($2::text[]) AND state = 'on-hold'"""
_OF_RECORDED = """SELECT study_instance_uid FROM dicomweb.study s
    JOIN unnest($1::text[], $2::text[]) AS v(reference, hash) ON s.imaging_study = v.reference
    WHERE s.recorded IS DISTINCT FROM v.hash"""
_NEXT = """SELECT s.study_instance_uid, s.instance_count + (
        SELECT count(*) FROM dicomweb.rejected_instance r
        WHERE r.study_instance_uid = s.study_instance_uid AND r.orthanc_id IS NOT NULL)
    FROM dicomweb.study s WHERE s.study_instance_uid > $1 ORDER BY s.study_instance_uid LIMIT $2"""
Version = tuple[str, str, dict[str, Any] | None]


class Watch:
    """Looks for what changed behind our back, and notes the studies: the intake brings them into line."""

    def __init__(
        self, database: Database, archive: Archive, fhir: FhirClient, wake: Callable[[], None], every_s: float
    ) -> None:
        self._database, self._archive, self._fhir, self._wake = database, archive, fhir, wake
        self._every_s = every_s
        self._seen: dict[str, set[tuple[str, str]]] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
                await self.go_round()
            except InteropError as error:
                get_log().warning("reconciliation waits", reason=error.message)
            await asyncio.sleep(self._every_s)

    async def look(self) -> int:
        """Note the studies whose patient or ImagingStudy changed in the record; returns how many."""
        patients = await self._follow("Patient", "identifier,link,active", self._studies_of_patients)
        return patients + await self._follow("ImagingStudy", None, self._studies_of_records)

    async def _follow(self, kind: str, elements: str | None, studies_of: Callable[[list[Version]], Any]) -> int:
        now = datetime.now(UTC)
        async with self._database.connection() as connection:
            position = await connection.fetchval(_SINCE, kind)
        count = 0
        told: set[tuple[str, str]] = set()
        if position is not None:  # The first time there is nothing that could have been missed: all is compared anew.
            since = datetime.fromisoformat(position) - _OVERLAP
            async for page in self._history(kind, elements, since):
                told.update((name, version) for name, version, _ in page)
                fresh = [one for one in page if (one[0], one[1]) not in self._seen.get(kind, set())]
                count += await self._note(await studies_of(fresh)) if fresh else 0
        self._seen[kind] = told
        async with self._database.connection() as connection:
            await connection.execute(_KEEP, kind, now.isoformat())
        return count

    async def _history(self, kind: str, elements: str | None, since: datetime) -> AsyncIterator[list[Version]]:
        """Yield the newest version of what was written since; None: it was deleted."""
        asked = [("_since", since.isoformat(timespec="milliseconds").replace("+00:00", "Z")), ("_count", _PAGE)]
        asked += [("_elements", elements)] if elements else []
        told: set[str] = set()
        cursor: str | None = None
        while True:
            page = await self._fhir.page(f"{kind}/_history", [*asked, *([("_cursor", cursor)] if cursor else [])])
            found: list[Version] = []
            for entry in page.get("entry", []):
                name = "/".join(entry["fullUrl"].split("/")[-2:])
                if name not in told:  # Newest first: what is told first holds.
                    told.add(name)
                    found.append((name, str(entry.get("response", {}).get("etag", "")), entry.get("resource")))
            yield found
            cursor = next_cursor(page)
            if cursor is None:
                return

    async def _studies_of_patients(self, changed: list[Version]) -> list[str]:
        prefix = f"{systems.IDENTIFIER_PATIENT}/"
        numbers = {
            str(item.get("value"))
            for _, _, resource in changed
            for item in (resource or {}).get("identifier", ())
            if str(item.get("system", "")).startswith(prefix)
        }
        async with self._database.connection() as connection:
            rows = await connection.fetch(_OF_PATIENTS, [name for name, _, _ in changed], sorted(numbers))
        return [row[0] for row in rows]

    async def _studies_of_records(self, changed: list[Version]) -> list[str]:
        hashes = ["" if resource is None else recorded_hash(resource) for _, _, resource in changed]
        async with self._database.connection() as connection:
            rows = await connection.fetch(_OF_RECORDED, [name for name, _, _ in changed], hashes)
        return [row[0] for row in rows]

    async def _note(self, studies: list[str]) -> int:
        if studies:
            async with self._database.connection() as connection, connection.transaction():
                for study in sorted(studies):
                    await note_change(connection, study, trace_of(study))
            self._wake()
        return len(studies)

    async def go_round(self) -> int:
        """Compare the counts of the next studies with the archive's; note those that differ, and go on from there."""
        async with self._database.connection() as connection:
            position = await connection.fetchval(_SINCE, "archive") or ""
            rows = await connection.fetch(_NEXT, position, _STUDIES_A_ROUND)
        different = [row[0] for row in rows if await self._archive.study_count(row[0]) != row[1]]
        # What is being received is not out of line: it is announced when it is complete.
        count = await self._note([study for study in different if await self._archive.is_stable(study)])
        async with self._database.connection() as connection:
            await connection.execute(_KEEP, "archive", rows[-1][0] if len(rows) == _STUDIES_A_ROUND else "")
        return count


def trace_of(study_instance_uid: str) -> str:
    """Trace id of a comparison that nobody asked for."""
    return derived_uuid("reconcile", study_instance_uid).hex
