"""Run the web application with Granian inside this process, so that a killed web process leaves no child behind."""

from __future__ import annotations

import asyncio
import signal

from granian.constants import Interfaces
from granian.server.embed import Server

from foramen.app import create
from foramen.kernel.settings import Settings


def serve(settings: Settings, only: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT; open requests are finished first."""
    asyncio.run(_serve(settings, only))


async def _serve(settings: Settings, only: str | None) -> None:
    server = Server(
        create(settings, only),
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        log_enabled=False,
        websockets=False,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    await server.serve()
