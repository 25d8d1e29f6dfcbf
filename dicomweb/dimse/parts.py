"""Composition of the DIMSE process: the same index, search and archive as DICOMweb, so that access is decided once."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from dicomweb.archive import Archive
from dicomweb.audit import AuditTrail
from dicomweb.consents.closed_records import ClosedRecords
from dicomweb.consents.released_output import ReleasedOutput
from dicomweb.database import Database
from dicomweb.dimse.accounts import Accounts
from dicomweb.institutions import Institutions
from dicomweb.lifecycle.unpacking import unpacking_of
from dicomweb.qido import Qido
from dicomweb.rejection.part import Rejections
from dicomweb.study_index import StudyIndex
from dicomweb.visibility import visibility
from foramen.kernel.fhir_client import BackendServiceAuth, FhirClient
from foramen.kernel.secret_files import read_or_create_key, read_or_create_secret
from foramen.kernel.settings import Settings

CLIENT_ID = "foramen-dimse"
SCOPE = "system/Patient.rs system/ServiceRequest.rs system/Procedure.crus foramen/gateway"


@dataclass(frozen=True, slots=True)
class Parts:
    """What every service of the process works with."""

    settings: Settings
    database: Database
    archive: Archive
    fhir: FhirClient
    institutions: Institutions
    closed_records: ClosedRecords
    index: StudyIndex
    qido: Qido
    audit: AuditTrail
    accounts: Accounts
    rejections: Rejections

    async def close(self) -> None:
        """Close all connections."""
        await self.institutions.stop()
        await self.closed_records.stop()
        await self.archive.close()
        await self.fhir.__aexit__()
        await self.database.close()


def build_parts(settings: Settings, database_url: str) -> Parts:
    """Build everything; nothing is opened before it is used."""
    database = Database(database_url)
    key = read_or_create_key(settings.home, CLIENT_ID, "P-384")
    endpoint, audience = f"{settings.internal_origin}/auth/token", f"{settings.origin}/auth/token"
    auth = BackendServiceAuth(CLIENT_ID, key, SCOPE, endpoint, audience)
    http = httpx.AsyncClient(auth=auth, timeout=httpx.Timeout(60.0, connect=3.0), trust_env=False)
    fhir = FhirClient(f"{settings.internal_origin}/fhir", http)
    institutions = Institutions(database, fhir, settings.institutions, settings.fhir_base)
    closed_records = ClosedRecords(database, fhir)
    seen = visibility(institutions, closed_records, ReleasedOutput(fhir))
    password = read_or_create_secret(settings.home, "orthanc")
    archive = Archive(settings.archive_url, settings.orthanc_username, password)
    archive.unpacking = unpacking_of(settings, database)
    return Parts(
        settings=settings,
        database=database,
        archive=archive,
        fhir=fhir,
        institutions=institutions,
        closed_records=closed_records,
        index=StudyIndex(database, seen),
        qido=Qido(settings, database, seen),
        audit=AuditTrail(database, fhir),
        accounts=Accounts(database),
        rejections=Rejections(settings, database_url, database, seen, archive),
    )
