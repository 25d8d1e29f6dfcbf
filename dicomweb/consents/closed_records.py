"""Keeps whose studies are closed as the record has it, and hides them inside every query (`dicomweb.visibility`).

The record alone reads Consents and restrictions; it tells the rules (`ImagingStudy/$closed-records`) and this keeps
them in tables: at most a second old when they decide (`RecentlyRead`), asked for by a tag, so that mostly nothing is
sent. When the record cannot be asked nothing is shown (503). ADR 0040; docs/api/consent.md
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from dicomweb.consents.rules import Rules, rules_of
from dicomweb.database import Database
from dicomweb.recently_read import RecentlyRead
from dicomweb.visibility import Clause
from foramen.kernel.access_context import ADMINISTRATOR, AccessContext
from foramen.kernel.consent_caller import caller_of
from foramen.kernel.fhir_client import FhirClient

PATH = "ImagingStudy/$closed-records"
_LOCK = 4_060_060_060
"""One process at a time asks the record and writes: an older answer never replaces a newer one."""
# The rules of `fhir_server.access.consent.DenialPolicy`; `test_consents_property.py` holds the two against each other.
_CONSENT = """NOT EXISTS (
    SELECT 1 FROM dicomweb.closed_record c
    WHERE c.patient_ref = s.patient_ref AND c.patient_ref <> ALL({0}::text[])
      AND (c.studies IS NULL OR s.study_instance_uid = ANY(c.studies))
      AND c.begins <= {1}::bigint AND {1}::bigint < c.ends AND (c.actors IS NULL OR c.actors && {2}::text[])
      AND NOT EXISTS (SELECT 1 FROM dicomweb.closed_record_permit p
                      WHERE p.rule = c.rule AND p.begins <= {1}::bigint AND {1}::bigint < p.ends
                        AND (p.actors IS NULL OR p.actors && {2}::text[])))"""
_RESTRICTION = """NOT EXISTS (SELECT 1 FROM dicomweb.restricted_record r
    WHERE r.patient_ref = s.patient_ref AND (r.state = 'erased' OR NOT {0}::boolean))"""

_KEPT = """SELECT tag, EXISTS (SELECT 1 FROM dicomweb.closed_record) AS denied,
                       EXISTS (SELECT 1 FROM dicomweb.restricted_record) AS restricted
           FROM dicomweb.closed_records_read"""


class ClosedRecords:
    """The limit of Consents and restrictions (`dicomweb.visibility.Limit`)."""

    def __init__(self, database: Database, fhir: FhirClient) -> None:
        self._database, self._fhir = database, fhir
        text = "It cannot be asked now which records are closed; try again"
        self._recent = RecentlyRead(self._read, "dicomweb-closed-records", text)
        self._denied = self._restricted = True
        self._tag: str | None = None

    async def clauses(self, context: AccessContext, action: str | None) -> Sequence[Clause]:
        """Return what hides closed studies from a caller; nothing when no record is closed to anybody.

        Raises
        ------
        UpstreamError
            The record cannot be asked: nothing may be shown.
        """
        await self._recent.ensure()
        found = []
        if self._denied:
            caller = caller_of(context)
            # Nobody is shut out of their own record; nor is who breaks the glass, out of that one.
            open_to = sorted(caller.names | ({caller.opened} if caller.opened else set()))
            found.append(Clause(_CONSENT, (open_to, int(time.time() * 1e6), sorted(caller.names))))
        if self._restricted:
            found.append(Clause(_RESTRICTION, (context.has_scope(ADMINISTRATOR),)))
        return found

    def as_of(self, context: AccessContext) -> float:
        """See `dicomweb.visibility.Limit`."""
        return self._recent.read_at

    async def stop(self) -> None:
        """End what is being read."""
        await self._recent.stop()

    async def _read(self) -> None:
        if not await self._nothing_changed():
            await self._read_locked()

    async def _nothing_changed(self) -> bool:
        """Ask by the tag of before, without the lock and a transaction: nearly every second it is the same.

        The tables must hold what it names, too: another process may have written what was in between.
        """
        if self._tag is None or await self._fhir.read_changed(PATH, self._tag) is not None:
            return False
        async with self._database.connection() as connection:
            kept = await connection.fetchrow(_KEPT)
        if kept is None or kept["tag"] != self._tag:
            return False
        self._denied, self._restricted = kept["denied"], kept["restricted"]
        return True

    async def _read_locked(self) -> None:
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            tag: str | None = await connection.fetchval("SELECT tag FROM dicomweb.closed_records_read")
            changed = await self._fhir.read_changed(PATH, tag)
            if changed is not None:
                answer, tag = changed
                await _replace(connection, await asyncio.to_thread(rules_of, answer), tag)
            kept = await connection.fetchrow(_KEPT)
        self._denied, self._restricted, self._tag = kept["denied"], kept["restricted"], tag


async def _replace(connection: Any, rules: Rules, tag: str) -> None:
    await connection.execute("DELETE FROM dicomweb.closed_record; DELETE FROM dicomweb.restricted_record")
    for table, rows in (
        ("closed_record", rules.closed),
        ("closed_record_permit", rules.permits),
        ("restricted_record", rules.restricted),
    ):
        await connection.copy_records_to_table(table, schema_name="dicomweb", records=rows)
    await connection.execute(
        """INSERT INTO dicomweb.closed_records_read (tag) VALUES ($1)
           ON CONFLICT (one) DO UPDATE SET tag = EXCLUDED.tag""",
        tag,
    )
