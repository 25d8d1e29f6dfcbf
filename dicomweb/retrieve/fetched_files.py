"""Files of an archive whose folder is not within reach: fetched once by HTTP, kept for a while within a limit."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import OrderedDict
from pathlib import Path

import httpx

from dicomweb.archive import Archive, ArchiveError


class FetchedFiles:
    """A folder of recently fetched files, at most `limit_bytes` in all; emptied at start."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder / secrets.token_hex(8), limit_bytes
        self._files: OrderedDict[str, int] = OrderedDict()
        self._fetching: dict[str, asyncio.Lock] = {}

    def new_path(self) -> Path:
        """A new name in the folder, for a file that its maker removes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder / secrets.token_hex(16)

    async def fetch(self, archive: Archive, orthanc_id: str) -> Path:
        """Path of an instance's file, fetched from the archive unless it is here.

        Raises
        ------
        ArchiveError
            The archive does not answer or breaks off.
        """
        async with self._fetching.setdefault(orthanc_id, asyncio.Lock()):
            path = self._folder / orthanc_id
            if orthanc_id not in self._files:
                staged = self.new_path()
                try:
                    with staged.open("xb") as file:
                        async with archive.open(orthanc_id) as chunks:
                            async for chunk in chunks:
                                file.write(chunk)
                except httpx.HTTPError as exc:
                    staged.unlink(missing_ok=True)
                    raise ArchiveError("The image archive broke off") from exc
                except BaseException:
                    staged.unlink(missing_ok=True)
                    raise
                self._files[orthanc_id] = staged.stat().st_size
                staged.replace(path)
                self._trim(orthanc_id)
            self._files.move_to_end(orthanc_id)
        self._fetching.pop(orthanc_id, None)
        return path

    def _trim(self, newest: str) -> None:
        while sum(self._files.values()) > self._limit and next(iter(self._files)) != newest:
            oldest, _ = self._files.popitem(last=False)
            (self._folder / oldest).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove what is here."""
        if self._folder.is_dir():
            for entry in os.scandir(self._folder):
                Path(entry.path).unlink(missing_ok=True)
            self._folder.rmdir()
