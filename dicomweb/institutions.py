"""Institutions divide the studies too: whose a study's patient is now, asked of the record before it is shown.

Where `FORAMEN_INSTITUTIONS` is ``separate``, a person sees the studies of patients whom their own institution manages
(ADR 0030). The index keeps each study's institution, so that a search can be bounded before paging; before a bounded
answer it reads from the record which patients changed, at most `MAX_AGE_S` ago. When the record cannot be asked nothing
is shown (503). https://hl7.org/fhir/R4/http.html#history
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dicomweb.database import Database
from dicomweb.recently_read import RecentlyRead
from foramen.kernel.access_context import AccessContext
from foramen.kernel.fhir_client import FhirClient, next_cursor

_OVERLAP = timedelta(seconds=60)
"""Read again each time: differences of clocks, and writes that were committed late."""
_PAGE = "1000"
_BATCH = 100
_ORGANIZATION = re.compile(r"(Organization/[A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_SINCE = "SELECT since FROM dicomweb.institutions_read"
_KEEP_SINCE = """INSERT INTO dicomweb.institutions_read (since) VALUES ($1)
    ON CONFLICT (one) DO UPDATE SET since = greatest(dicomweb.institutions_read.since, EXCLUDED.since)"""
_SET = """UPDATE dicomweb.study s SET institution = v.institution
    FROM unnest($1::text[], $2::text[]) AS v(patient, institution)
    WHERE s.patient_ref = v.patient AND s.institution IS DISTINCT FROM v.institution"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Whose studies a caller reaches: those of one Organization's patients, and of these patients in any case."""

    organization: str | None
    patients: tuple[str, ...]


def organization_of(patient: dict[str, Any], fhir_base: str) -> str | None:
    """Return `Organization/id` of who manages a Patient; None: nobody, or somebody elsewhere."""
    reference = (patient.get("managingOrganization") or {}).get("reference")
    match = _ORGANIZATION.fullmatch(reference.removeprefix(f"{fhir_base}/")) if isinstance(reference, str) else None
    return match.group(1) if match else None


def bounds_of(context: AccessContext, institutions: str) -> Bounds | None:
    """Return what bounds a caller, None: no institution does.

    Parameters
    ----------
    institutions : the setting; all but ``shared`` divides
    """
    if institutions == "shared" or not context.is_bounded_by_institution:
        return None
    reached = [f"Patient/{context.break_glass.patient}"] if context.break_glass is not None else []
    if context.fhir_user is not None and context.fhir_user.startswith("Patient/"):
        reached.append(context.fhir_user)  # Nobody is shut out of their own record.
    return Bounds(f"Organization/{context.institution}" if context.institution else None, tuple(reached))


class Institutions:
    """Keeps the institution of each study as the record has it."""

    def __init__(self, database: Database, fhir: FhirClient, institutions: str, fhir_base: str) -> None:
        self._database, self._fhir = database, fhir
        self._setting, self._fhir_base = institutions, fhir_base
        text = "It cannot be asked now whose patients these are; try again"
        self._recent = RecentlyRead(self._read, "dicomweb-institutions", text)

    async def bounds(self, context: AccessContext) -> Bounds | None:
        """Return what bounds a caller, once the index knows of all changes.

        Raises
        ------
        UpstreamError
            The record cannot be asked: nothing may be shown.
        """
        found = bounds_of(context, self._setting)
        if found is not None and found.organization is not None:
            await self._recent.ensure()
        return found

    def as_of(self, context: AccessContext) -> float:
        """When what `bounds` stands on was read (`time.monotonic`); infinity: no institution bounds the caller."""
        found = bounds_of(context, self._setting)
        return math.inf if found is None or found.organization is None else self._recent.read_at

    async def stop(self) -> None:
        """End what is being read."""
        await self._recent.stop()

    async def _read(self) -> None:
        now = datetime.now(UTC)
        async with self._database.connection() as connection:
            since: datetime | None = await connection.fetchval(_SINCE)
        if since is None:
            async for batch in self._of_all():
                await self._keep(batch)
        else:
            async for batch in self._changed(since - _OVERLAP):
                await self._keep(batch)
        async with self._database.connection() as connection:
            await connection.execute(_KEEP_SINCE, now)

    async def _changed(self, since: datetime) -> AsyncIterator[dict[str, str | None]]:
        """Yield the institutions of the patients written since, as they are now; a deleted one has none."""
        asked = [("_since", since.isoformat(timespec="milliseconds").replace("+00:00", "Z")), ("_count", _PAGE)]
        asked.append(("_elements", "managingOrganization"))
        told: set[str] = set()
        cursor: str | None = None
        while True:
            page = await self._fhir.page("Patient/_history", [*asked, *([("_cursor", cursor)] if cursor else [])])
            found: dict[str, str | None] = {}
            for entry in page.get("entry", []):
                name = "/".join(entry["fullUrl"].split("/")[-2:])
                if name not in told:  # Newest first: what is told first holds.
                    told.add(name)
                    found[name] = organization_of(entry.get("resource") or {}, self._fhir_base)
            yield found
            cursor = next_cursor(page)
            if cursor is None:
                return

    async def _of_all(self) -> AsyncIterator[dict[str, str | None]]:
        """Yield the institutions of the patients of all studies: once, when institutions begin to divide them."""
        after = ""
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    "SELECT DISTINCT patient_ref FROM dicomweb.study WHERE patient_ref > $1 ORDER BY 1 LIMIT $2",
                    *(after, _BATCH),
                )
            if not rows:
                return
            names = [row[0] for row in rows]
            ids = ",".join(name.removeprefix("Patient/") for name in names)
            asked = [("_id", ids), ("_elements", "managingOrganization"), ("_count", str(_BATCH))]
            there = {
                f"Patient/{one['id']}": organization_of(one, self._fhir_base)
                for one in await self._fhir.search("Patient", asked)
            }
            yield {name: there.get(name) for name in names}
            after = names[-1]

    async def _keep(self, found: dict[str, str | None]) -> None:
        if found:
            async with self._database.connection() as connection:
                await connection.execute(_SET, list(found), list(found.values()))
