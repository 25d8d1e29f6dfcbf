"""A packed or offloaded file is made whole again when it is read: before the gateway opens it, or Orthanc could not.

Shared by the DICOMweb service and the DIMSE process. ADR 0039
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dicomweb.database import Database
from dicomweb.lifecycle.codec import pool_of
from dicomweb.lifecycle.copies import ChecksumError, digest, packed_place, place
from dicomweb.lifecycle.remote_files import Form, fetched, form_of
from dicomweb.lifecycle.turns import TURN
from dicomweb.retrieve.codec_pool import CodecPool, UndecodableError
from foramen.kernel.errors import NotFoundError, UpstreamError
from foramen.kernel.log import get_log
from foramen.kernel.settings import Settings

if TYPE_CHECKING:
    from dicomweb.lifecycle.bucket import Bucket

_MANY = 64
_AHEAD = 4
"""Files made whole while one is sent: as many as codec processes may run at once on a small machine, and some."""
_ROW = """SELECT sha256, size, packed_sha256, packed_size, remote FROM dicomweb.nearline_file
    WHERE attachment = $1"""

_UNPACKED = "UPDATE dicomweb.nearline_file SET unpacked_at = now() WHERE attachment = $1"


class Unpacking:
    """Makes plain copies of packed files, each once, however many ask for it.

    Parameters
    ----------
    nearline : the second folder
    bucket : where its files may lie instead (ADR 0055)
    """

    def __init__(self, database: Database, nearline: Path, codec: CodecPool, bucket: Bucket | None = None) -> None:
        self._database, self._nearline, self._codec, self._bucket = database, nearline.resolve(), codec, bucket
        self._locks: dict[str, asyncio.Lock] = {}

    async def present(self, paths: Sequence[Path]) -> None:
        """Return when every one of these files of the archive that was packed can be opened.

        Raises
        ------
        UpstreamError, ChecksumError
            See `unpack`.
        """
        missing = _missing(paths) if len(paths) < _MANY else await asyncio.to_thread(_missing, paths)
        for start in range(0, len(missing), _MANY):
            await asyncio.gather(*map(self.unpack, missing[start : start + _MANY]))

    async def lacks(self, paths: Sequence[Path]) -> bool:
        """Whether one of these files of the archive cannot be opened as it is."""
        return bool(_missing(paths) if len(paths) < _MANY else await asyncio.to_thread(_missing, paths))

    async def in_turn(self, paths: Sequence[Path]) -> AsyncGenerator[Path, None]:
        """Yield each file when it can be opened; while it is read, the next ones are made whole.

        Raises
        ------
        UpstreamError, ChecksumError
            See `unpack`; of a file whose turn has come.
        """
        ahead: deque[asyncio.Task[None]] = deque()
        try:
            for number, path in enumerate(paths):
                while len(ahead) <= _AHEAD and number + len(ahead) < len(paths):
                    ahead.append(asyncio.create_task(self.present([paths[number + len(ahead)]])))
                await ahead.popleft()
                yield path
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def unpack(self, name: str) -> bool:
        """Make a file whole again; whether it was packed.

        Raises
        ------
        UpstreamError
            It cannot be made whole now.
        ChecksumError
            What came out is not the original; it is not given to anybody.
        """
        lock = self._locks.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                return place(self._nearline, name).exists() or await self._unpack(name)
        except OSError as exc:
            raise UpstreamError("The storage folders cannot be read or written") from exc
        except TimeoutError as exc:
            raise UpstreamError("The storage folders are busy", headers={"Retry-After": "30"}) from exc
        finally:
            if not lock.locked():
                self._locks.pop(name, None)

    async def _unpack(self, name: str) -> bool:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_ROW, name)
        if row is None:
            return False
        form, packed = form_of(*row[:4]), packed_place(self._nearline, name)
        remote = row["remote"] == "there" and not (form.packed and packed.exists())
        if not form.packed and not remote:  # It moved and is not there: the folder is not mounted, or it was lost.
            raise UpstreamError("The second folder cannot be read", headers={"Retry-After": "30"})
        target = place(self._nearline, name)
        staged = target.with_name(f".{name}.{secrets.token_hex(8)}")
        brought = staged.with_name(f"{staged.name}.fetched")
        try:
            if remote:
                source = brought if form.packed else staged
                await asyncio.to_thread(self._fetched, name, form, source)
            if form.packed:
                await self._made(brought if remote else packed, staged)
            if await asyncio.to_thread(digest, staged) != (bytes(row["sha256"]), row["size"]):
                get_log().error("a packed file does not give its original back", attachment=name)
                raise ChecksumError
            async with self._database.connection() as connection:
                await connection.execute(_UNPACKED, name)
            # In turn with recalls and sweeps: a copy of what was deleted meanwhile would lie there for ever.
            async with self._database.connection() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", TURN)
                if await connection.fetchrow(_ROW, name) is None:
                    return False
                staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)
            brought.unlink(missing_ok=True)
        return True

    def _fetched(self, name: str, form: Form, target: Path) -> None:
        if not self._nearline.is_dir():  # Made anew below where it is to be mounted, it would hide what lies there.
            raise UpstreamError("The second folder cannot be read", headers={"Retry-After": "30"})
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fetched(self._bucket, name, form, target)

    async def _made(self, packed: Path, staged: Path) -> None:
        try:
            await self._codec.ask("unpack", path=str(packed), target=str(staged))
        except (UndecodableError, NotFoundError) as exc:
            raise UpstreamError("A stored file cannot be unpacked now", headers={"Retry-After": "30"}) from exc

    async def close(self) -> None:
        """End the codec processes."""
        await self._codec.close()


def _missing(paths: Sequence[Path]) -> list[str]:
    return [path.name for path in paths if not path.exists()]


def unpacking_of(settings: Settings, database: Database) -> Unpacking | None:
    """Return what an installation with a second folder needs; None: there is none, and nothing is packed."""
    if settings.nearline_folder is None:
        return None
    return Unpacking(database, settings.nearline_folder, pool_of(settings), bucket_if_set(settings))


def bucket_if_set(settings: Settings) -> Bucket | None:
    """Return the bucket; its library is loaded only where there is one.

    Raises
    ------
    InvalidRequestError
        See `bucket.bucket_of`.
    """
    if settings.nearline_s3_bucket is None:
        return None
    from dicomweb.lifecycle.bucket import bucket_of

    return bucket_of(settings)
