"""Run the web application with Granian inside this process, so that a killed web process leaves no child behind."""

from __future__ import annotations

import asyncio
import signal

import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server

from foramen.app import create
from foramen.app import migrate as migrate_all
from foramen.kernel.heartbeat import beat
from foramen.kernel.long_lived import set_apart_what_is_loaded
from foramen.kernel.settings import Settings


def serve(settings: Settings, only: str | None = None, *, migrate: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; open requests are finished first.

    With `migrate` the database is brought up to date first, in this process: its imports are paid once.
    """
    if migrate:
        migrate_all(settings)
        beat(settings.home, "migrations")
    uvloop.run(_serve(settings, only))


async def _serve(settings: Settings, only: str | None) -> None:
    server = Server(
        create(settings, only),
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        log_enabled=False,
        websockets=True,  # notification connections of the Worklist Service (DICOM PS3.18 §8.10)
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    setting_apart = asyncio.create_task(set_apart_what_is_loaded())
    await server.serve()
    setting_apart.cancel()
