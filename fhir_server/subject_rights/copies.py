"""Copies of a person's data outside the record: files of exports and imports, answers of requests put off.

An export that holds the person is thrown away as a whole: its owner exports again. So is every pseudonymised export,
in which nobody can be found without the project's key, and every one that is not finished.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from fhir_server.store import jobs
from foramen.kernel.errors import ConflictError

_CHUNK = 1 << 20
_WAIT_S, _PAUSE_S = 60.0, 0.2
_OPEN = ("queued", "running")


async def remove_copies(connections: Any, folder: Path, needles: list[bytes], kinds: tuple[str, ...]) -> dict[str, int]:
    """Remove every copy that holds one of the needles; returns how many exports and imports, and how many answers.

    Parameters
    ----------
    connections : lends database connections
    folder : of the files, one folder in it for each job
    kinds : job kinds that may hold copies

    Raises
    ------
    ConflictError
        A job that writes copies does not end.
    """
    async with connections.lend() as connection:
        found = await jobs.of_kinds(connection, kinds)
    files, answers = 0, 0
    for record in found:
        home = folder / record["id"]
        has_files = await asyncio.to_thread(home.is_dir)
        if await asyncio.to_thread(_holds, record, home, needles):
            await _end(connections, record["id"])
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
            async with connections.lend() as connection:
                await jobs.remove(connection, [record["id"]])
            files, answers = files + has_files, answers + (not has_files)
    known = {record["id"] for record in found}
    for home in await asyncio.to_thread(_folders, folder):
        if home.name not in known and await asyncio.to_thread(_any_file_holds, home, needles):
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
            files += 1
    return {"files": files, "answers": answers}


async def _end(connections: Any, job_id: str) -> None:
    """Cancel a job and wait until nobody runs it."""
    for _ in range(int(_WAIT_S / _PAUSE_S)):
        async with connections.lend() as connection:
            status = await jobs.cancel(connection, job_id, 0.0)
        if status not in _OPEN:
            return
        await asyncio.sleep(_PAUSE_S)
    raise ConflictError("A job that holds a copy of the record does not end")


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _holds(record: Any, home: Path, needles: list[bytes]) -> bool:
    request = orjson.loads(record["request"])
    is_export = "export" in request
    if is_export and (record["status"] in _OPEN or request["export"].get("project")):
        return True
    texts = [bytes(record["request"]), bytes(record["state"]), *_encoded(request)]
    return any(needle in text for needle in needles for text in texts) or _any_file_holds(home, needles)


def _encoded(request: dict[str, Any]) -> Iterable[bytes]:
    """Yield the body of a request that was put off."""
    try:
        yield base64.b64decode(str(request.get("body", "")))
    except (ValueError, binascii.Error):
        return


def _any_file_holds(home: Path, needles: list[bytes]) -> bool:
    if not home.is_dir():
        return False
    return any(file_holds(path, needles) for path in sorted(home.rglob("*")) if path.is_file())


def file_holds(path: Path, needles: list[bytes]) -> bool:
    """Whether a file, plain or gzip, holds one of the needles. One that cannot be read counts as if it did."""
    longest = max(map(len, needles), default=1)
    rest = b""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            file = gzip.GzipFile(fileobj=plain) if packed else plain
            while piece := file.read(_CHUNK):
                text = rest + piece
                if any(needle in text for needle in needles):
                    return True
                rest = text[-longest:]
    except FileNotFoundError:
        return False
    except (OSError, EOFError, zlib.error):
        return True
    return False
