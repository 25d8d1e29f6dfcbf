"""A process that runs jobs of the kind `count` until it is killed: `python job_process.py DATABASE_URL`."""

from __future__ import annotations

import asyncio
import sys

from fhir_server.jobs.job import Job
from fhir_server.jobs.runner import JobRunner
from fhir_server.settings import FhirSettings

LIMITS = FhirSettings(job_poll_s=0.1, job_lease_s=1.0, job_attempts=3)


async def count(job: Job) -> None:
    """Count to `request.to`, each number written down together with the checkpoint that it was."""
    reached = job.state.get("reached", 0)
    while reached < job.request["to"]:
        reached += 1
        await asyncio.sleep(job.request.get("pause", 0.02))
        async with job.connections.lend() as connection, connection.transaction():
            await connection.execute("INSERT INTO counted VALUES ($1, $2)", job.id, reached)
            await job.save({"reached": reached}, reached / job.request["to"], connection=connection)


async def main() -> None:
    """Run until killed."""
    runner = JobRunner(sys.argv[1], LIMITS)
    runner.register("count", count)
    await runner.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
