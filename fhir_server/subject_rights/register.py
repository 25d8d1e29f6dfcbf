"""Let the jobs of this process make copies and carry out erasures."""

from __future__ import annotations

import asyncio
import shutil

from fhir_server.jobs.job import Job
from fhir_server.server import Server
from fhir_server.subject_rights import erasure, exporting


def register(server: Server) -> None:
    """Say what runs the jobs of subject rights; before the first job runs."""

    async def export(job: Job) -> None:
        await exporting.SubjectExport(server, job, server.bulk.folder(job.id)).run()

    async def erase(job: Job) -> None:
        await erasure.Erasing(server, job, server.bulk.folder("")).run()

    async def remove(job_id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, server.bulk.folder(job_id), ignore_errors=True)

    server.jobs.register(exporting.KIND, export, parallel=server.limits.export_parallel, cleanup=remove)
    server.jobs.register(erasure.KIND, erase)
