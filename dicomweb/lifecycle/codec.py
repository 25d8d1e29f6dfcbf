"""The codec processes of the gateway, for a command that waits for each file: packing never runs in its own process.

A file that crashes its encoder, or takes too long, cannot be packed, and nothing else happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from dicomweb.retrieve.codec_pool import CodecPool
from foramen.kernel.errors import InteropError
from foramen.kernel.settings import Settings


class Codec(Protocol):
    """Has one file packed or unpacked."""

    def __call__(self, operation: str, source: Path, target: Path) -> str:
        """Do ``pack`` or ``unpack``; returns the name of the codec used, empty when it cannot be done."""


def pool_of(settings: Settings) -> CodecPool:
    """Processes that take whole files; none starts before it is asked."""
    memory = settings.codec_memory_mib * 1024 * 1024
    return CodecPool(settings.codec_processes, memory, settings.nearline_codec_timeout_s)


@contextmanager
def waiting_codec(settings: Settings) -> Iterator[Codec]:
    """Lend a codec to code without an event loop."""
    pool = pool_of(settings)
    with asyncio.Runner() as runner:

        def work(operation: str, source: Path, target: Path) -> str:
            try:
                found = runner.run(pool.ask(operation, path=str(source), target=str(target)))
            except InteropError:
                return ""
            return str(found.head.get("codec", ""))

        try:
            yield work
        finally:
            runner.run(pool.close())
