"""What `foramen reconcile` needs beside the running gateway: own connections to database, archive and record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dicomweb.archive import Archive
from dicomweb.database import Database
from dicomweb.reconciliation.decisions import confirm
from dicomweb.reconciliation.full_run import FullRun
from foramen.kernel.access_context import AccessContext
from foramen.kernel.database_url import database_url
from foramen.kernel.errors import NotFoundError
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.secret_files import read_or_create_secret
from foramen.kernel.settings import Settings


@dataclass(slots=True)
class CommandParts:
    """Database, archive, and the comparison of both with the record."""

    database: Database
    archive: Archive
    full_run: FullRun

    async def study_count(self) -> int:
        """How many studies a whole run looks at: those of the archive, and those of the index."""
        async with self.database.connection() as connection:
            indexed = int(await connection.fetchval("SELECT count(*) FROM dicomweb.study"))
        return indexed + await self.archive.count_studies()

    async def being_mended(self, studies: Sequence[str]) -> int:
        """How many of these studies are still to be worked on by the gateway."""
        query = "SELECT count(*) FROM dicomweb.arrival WHERE study_instance_uid = ANY($1::text[])"
        async with self.database.connection() as connection:
            return int(await connection.fetchval(query, list(studies)))

    async def confirm(self, number: int, who: AccessContext) -> str:
        """Confirm a finding (`decisions.confirm`); returns the Study Instance UID.

        Raises
        ------
        NotFoundError, ConflictError
            There is no such finding, or it cannot be confirmed.
        """
        async with self.database.connection() as connection:
            study = await connection.fetchval("SELECT study_instance_uid FROM dicomweb.drift WHERE id = $1", number)
        if study is None:
            raise NotFoundError("There is no such finding")
        archived = {uid for _, uid, _ in await self.archive.study_contents(study)}
        async with self.database.connection() as connection, connection.transaction():
            return await confirm(connection, number, archived, who, new_trace_id())


@asynccontextmanager
async def command_parts(settings: Settings) -> AsyncIterator[CommandParts]:
    """Lend the parts; they are closed after."""
    from dicomweb.app import fhir_client

    database = Database(database_url(settings))
    password = read_or_create_secret(settings.home, "orthanc")
    archive = Archive(settings.archive_url, settings.orthanc_username, password)
    try:
        async with fhir_client(settings) as fhir:
            issuer = settings.default_patient_id_issuer
            yield CommandParts(database, archive, FullRun(database, archive, fhir, settings.fhir_base, issuer))
    finally:
        await archive.close()
        await database.close()
