"""Bulk data of one web process: where files lie, the job kinds, names of files that cannot be guessed.

A cluster shares the folder (`FORAMEN_FHIR_BULK_FOLDER`) between its web processes.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import shutil
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from fhir_server.access.consents import Consents
from fhir_server.access.institutions import wall_of
from fhir_server.access.policy import Access
from fhir_server.audit.indexer import AuditIndexer
from fhir_server.bulk.export import Export
from fhir_server.bulk.exported_patients import ExportedPatients
from fhir_server.bulk.importing import Import
from fhir_server.bulk.plan import plan
from fhir_server.bulk.projects import project_key
from fhir_server.bulk.pseudonyms import Pseudonymiser
from fhir_server.bulk.request import ExportRequest
from fhir_server.bulk.resolved import resolved
from fhir_server.bulk.seen import looks_inside, seen
from fhir_server.jobs.job import Job
from fhir_server.jobs.runner import JobRunner
from fhir_server.search.completeness import WatchedParser
from fhir_server.server import Server
from fhir_server.settings import FhirSettings
from foramen.kernel.errors import NotFoundError
from foramen.kernel.secret_files import read_or_create_secret

EXPORT = "export"
IMPORT = "import"
UPLOAD = "upload.ndjson"
_SIGNATURE_BYTES = 18
_ABANDONED_S = 7 * 86_400.0


class Bulk:
    """What the routes of bulk data need."""

    def __init__(
        self,
        home: Path,
        limits: FhirSettings,
        own_url: str,
        jobs: JobRunner,
        consents: Consents | None,
        audit_indexer: AuditIndexer,
    ) -> None:
        self._home = home
        self.limits = limits
        self.own_url = own_url
        self.jobs = jobs
        self._folder = limits.bulk_folder or home / "bulk"
        self._consents = consents
        self._audit_indexer = audit_indexer
        self._polls: dict[str, tuple[int, int]] = {}
        self._server: Server | None = None
        jobs.register(EXPORT, self._run_export, parallel=limits.export_parallel, cleanup=self._remove)
        jobs.register(IMPORT, self._run_import, cleanup=self._remove)

    def serve(self, server: Server) -> None:
        """Say whose record it is; before the first job runs."""
        self._server = server

    def folder(self, job_id: str) -> Path:
        """Folder of one job's files."""
        return self._folder / job_id

    async def _run_export(self, job: Job) -> None:
        access = await self._access(job)
        request = ExportRequest.from_json(job.request["export"])
        wanted = plan(request, access, WatchedParser(self.limits, self.own_url, access), job.request["members"])
        async with job.connections.lend() as connection:
            wanted = await resolved(connection, self._serving(), wanted, arranged=True)
        change = None
        if request.project:
            change = Pseudonymiser(self.project_key(request.project), self.own_url, datetime.now(UTC).year)
        # Ids of deleted resources would link pseudonyms; what was hidden before its deletion cannot be told.
        hidden = (
            access.consent is not None
            or access.wall is not None
            or looks_inside(access, (item.resource_type for item in wanted))
        )
        patients = ExportedPatients(self.folder(job.id), access.wall, self.own_url) if access.wall else None
        export = Export(
            job,
            request,
            wanted,
            self.folder(job.id),
            self.limits,
            settle_audit=self._audit_indexer.settle,
            seen=lambda name: patients.after(seen(access, name), name) if patients else seen(access, name),
            noted=patients.sync if patients else None,
            pseudonymise=change,
            deletions=request.since is not None and not request.project and not hidden,
        )
        await export.run()

    def _serving(self) -> Server:
        assert self._server is not None  # noqa: S101 - `serve` is part of building the service
        return self._server

    def project_key(self, name: str) -> bytes:
        """Return the key of a project.

        Raises
        ------
        InvalidRequestError
            There is no such project.
        """
        return project_key(self._home, name)

    async def _run_import(self, job: Job) -> None:
        folder = self.folder(job.id)
        await Import(job, await self._access(job), folder, self._serving()).run()
        (folder / UPLOAD).unlink(missing_ok=True)

    async def _access(self, job: Job) -> Access:
        consent = await self._consents.policy(job.owner) if self._consents is not None else None
        closed = await self._serving().restrictions.policy(job.owner)
        wall = wall_of(job.owner, self._serving().institutions, self.own_url)
        return Access(job.owner, consent, self.own_url, closed, wall)

    async def _remove(self, job_id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self.folder(job_id), ignore_errors=True)

    async def upload_folder(self, job_id: str) -> Path:
        """Make the folder of a job that is not submitted yet; those that never were are removed after a week."""
        folder = self.folder(job_id)

        def make() -> None:
            folder.mkdir(mode=0o700, parents=True)
            for other in self._folder.iterdir():
                upload = other / UPLOAD
                if upload.is_file() and upload.stat().st_mtime < time.time() - _ABANDONED_S:
                    shutil.rmtree(other, ignore_errors=True)

        await asyncio.to_thread(make)
        return folder

    def is_too_often(self, job_id: str) -> bool:
        """Whether a job's status was asked for more often in this second than is allowed."""
        second = int(time.monotonic())
        if len(self._polls) > 10_000:
            self._polls.clear()
        last, count = self._polls.get(job_id, (second, 0))
        count = count + 1 if last == second else 1
        self._polls[job_id] = second, count
        return count > self.limits.export_polls_per_s

    def file_name(self, job_id: str, place: int, expires: int) -> str:
        """Return the last part of a file's URL: job, place, end of its time and a signature over them."""
        text = f"{job_id}.{place}.{expires}"
        return f"{text}.{self._signature(text)}.ndjson"

    def read_name(self, name: str) -> tuple[str, int]:
        """Return job and place of a file's URL.

        Raises
        ------
        NotFoundError
            Not a name of ours, or its time is over.
        """
        text, _, signature = name.removesuffix(".ndjson").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(text).encode()):
            raise NotFoundError("There is no such file, or it has expired")
        job_id, place, expires = text.rsplit(".", 2)
        if int(expires) < time.time():
            raise NotFoundError("There is no such file, or it has expired")
        return job_id, int(place)

    def _signature(self, text: str) -> str:
        key = read_or_create_secret(self._home, "bulk-files").encode()
        digest = hmac.new(key, text.encode(), sha256).digest()[:_SIGNATURE_BYTES]
        return base64.urlsafe_b64encode(digest).decode()

    def path_of(self, job_id: str, record: dict[str, Any]) -> Path:
        """Where a file lies."""
        return self.folder(job_id) / str(record["name"])
