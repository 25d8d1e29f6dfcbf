"""A web process without its port, which runs bulk jobs until it is killed; its argument is the database URL."""

from __future__ import annotations

import asyncio
import sys

from fhir_server.app import FhirService
from foramen.kernel.settings import Settings
from tests.builders.tokens import verifier


async def main() -> None:
    """Run until killed."""
    service = FhirService(Settings(port=8000), sys.argv[1], verifier())
    await service.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
