"""Studies, series and instances as stored or in another transfer syntax: multipart, single part or ZIP.

DICOM PS3.18 §10.4.1.1.1 to .3, §8.6.1 (payloads), §8.7.3.5.2 (transfer syntax); Supplement 211 (application/zip).
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.archive import ArchiveError
from dicomweb.lifecycle.unpacking import Unpacking
from dicomweb.media_types import Offer, negotiate
from dicomweb.multipart import closing, new_boundary, part_head
from dicomweb.retrieve import answers
from dicomweb.retrieve.pieces import FileSpan, Piece, stream, total
from dicomweb.retrieve.resources import DICOM, OCTETS, ZIP, Resources, both, uids_of
from dicomweb.retrieve.stored_files import StoredFile
from dicomweb.retrieve.transfer_syntaxes import EXPLICIT_LITTLE, INSTANCE_TARGETS
from dicomweb.study_index import IndexedInstance
from foramen.kernel.access_context import AccessContext

_ZIP_CHUNK = 1024 * 1024


class Instances:
    """The study, series and instance resources."""

    def __init__(self, resources: Resources) -> None:
        self._in = resources

    async def choose(self, request: Request, context: AccessContext) -> tuple[list[IndexedInstance], Offer]:
        """Find the instances, access first, and the representation the client wants."""
        found = await self._in.index.instances(context, *uids_of(request))
        return found, negotiate(request, instance_offers(found, single="instance" in request.path_params))

    async def answer(self, request: Request, found: list[IndexedInstance], offer: Offer) -> Response:
        """Answer with instances in the form chosen."""
        tag = answers.etag_of("instances", str(offer), *(item.orthanc_id for item in found))
        known = answers.not_modified(request, tag)
        if known is not None:
            return known
        if offer.media_type == ZIP:
            return await self._zip(request, found, offer, tag)
        if not offer.multipart:
            return await self.one(request, found[0], offer.transfer_syntax, tag)
        if any(_changes(item, offer.transfer_syntax) for item in found):
            return await self._transcoded(request, found, offer, tag)
        return await self._as_stored(request, found, tag)

    async def one(self, request: Request, instance: IndexedInstance, syntax: str | None, tag: str) -> Response:
        """One instance in a single part; ranges are possible."""
        path, used, temporary = await self._file(instance, syntax)
        size = (await asyncio.to_thread(path.stat)).st_size
        pieces: list[Piece] = [FileSpan(path, 0, size, whole=True)]
        content_type = f"{DICOM}; transfer-syntax={used}"
        if not temporary:
            headers = {"Content-Type": content_type, "ETag": f'"{tag}"', **answers.CACHE}
            handed = self._in.nginx.response(request, pieces, headers)
            if handed is not None:
                return handed
        try:
            return answers.single(request, pieces, content_type, tag, after=path.unlink if temporary else None)
        except BaseException:
            if temporary:
                path.unlink(missing_ok=True)
            raise

    async def _file(self, instance: IndexedInstance, syntax: str | None) -> tuple[Path, str, bool]:
        """Return (path, transfer syntax, whether it was made for this answer and is to be removed)."""
        path = await self._in.files.path(instance)
        if not _changes(instance, syntax) or syntax is None:
            return path, instance.transfer_syntax_uid, False
        target = self._in.fetched.new_path()
        try:
            await self._in.codec.ask("instance", path=str(path), target=str(target), syntax=syntax)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        pixels = instance.frames > 0 or syntax not in INSTANCE_TARGETS[2:]
        return target, syntax if pixels else EXPLICIT_LITTLE, True

    async def _as_stored(self, request: Request, found: list[IndexedInstance], tag: str) -> Response:
        boundary = new_boundary()
        files = await self._in.files.files(found)
        if files is None:
            # The archive's folder is elsewhere: pass on what Orthanc sends. The first before any header.
            return await self._relayed(request, found, boundary, tag)
        await self._in.files.path(found[0])
        unpacking = await self._in.files.packed(files)
        if unpacking is not None:
            return self._unpacked(request, found, files, unpacking, boundary, tag)
        heads: dict[str, bytes] = {}
        pieces: list[Piece] = []
        for item, file in zip(found, files, strict=True):
            syntax = item.transfer_syntax_uid
            if syntax not in heads:
                heads[syntax] = part_head(boundary, _head(syntax))
            pieces += (heads[syntax], FileSpan(self._in.files.name(file), 0, file.size, whole=True))
        pieces.append(closing(boundary))
        headers = _multipart_headers(boundary, tag)
        handed = self._in.nginx.response(request, pieces, headers)
        return handed or answers.body(request, pieces, headers | {"Content-Length": str(total(pieces))})

    def _unpacked(
        self,
        request: Request,
        found: Sequence[IndexedInstance],
        files: Sequence[StoredFile],
        unpacking: Unpacking,
        boundary: str,
        tag: str,
    ) -> Response:
        """Answer with instances of which some lie packed: each is made whole when its turn comes, the first before.

        The length is known nevertheless; what cannot be made whole breaks the body off before its end.
        """
        heads = [part_head(boundary, _head(item.transfer_syntax_uid)) for item in found]
        end = closing(boundary)

        async def body() -> AsyncIterator[bytes]:
            async with aclosing(unpacking.in_turn([self._in.files.absolute(file) for file in files])) as paths:
                turn = 0
                async for path in paths:
                    async for chunk in stream([heads[turn], FileSpan(path, 0, files[turn].size)]):
                        yield chunk
                    turn += 1
            yield end

        length = sum(map(len, heads)) + sum(file.size for file in files) + len(end)
        return streaming(request, body(), _multipart_headers(boundary, tag) | {"Content-Length": str(length)})

    async def _relayed(self, request: Request, found: Sequence[IndexedInstance], boundary: str, tag: str) -> Response:
        first = await self._in.archive.read(found[0].orthanc_id, keep=False)

        async def body() -> AsyncIterator[bytes]:
            for number, item in enumerate(found):
                yield part_head(boundary, _head(item.transfer_syntax_uid))
                if number == 0:
                    yield first
                    continue
                async with AsyncExitStack() as stack:
                    try:
                        chunks = await stack.enter_async_context(self._in.archive.open(item.orthanc_id))
                        async for chunk in chunks:
                            yield chunk
                    except httpx.HTTPError as exc:
                        raise ArchiveError("The image archive broke off") from exc
            yield closing(boundary)

        return streaming(request, body(), _multipart_headers(boundary, tag))

    async def _transcoded(self, request: Request, found: list[IndexedInstance], offer: Offer, tag: str) -> Response:
        boundary, syntax = new_boundary(), offer.transfer_syntax
        # Before any header is sent, so that what cannot be decoded can still become a status.
        first = await self._file(found[0], syntax)

        async def body() -> AsyncIterator[bytes]:
            path, used, temporary = first
            for number, item in enumerate(found):
                if number:
                    path, used, temporary = await self._file(item, syntax)
                try:
                    yield part_head(boundary, _head(used))
                    async for chunk in stream([FileSpan(path, 0, path.stat().st_size)]):
                        yield chunk
                finally:
                    if temporary:
                        path.unlink(missing_ok=True)
            yield closing(boundary)

        if request.method == "HEAD" and first[2]:
            first[0].unlink(missing_ok=True)
        return streaming(request, body(), _multipart_headers(boundary, tag))

    async def _zip(self, request: Request, found: list[IndexedInstance], offer: Offer, tag: str) -> Response:
        first = await self._file(found[0], offer.transfer_syntax)

        async def body() -> AsyncIterator[bytes]:
            sink = _Sink()
            with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for number, item in enumerate(found):
                    path, _, temporary = first if number == 0 else await self._file(item, offer.transfer_syntax)
                    try:
                        entry = zipfile.ZipInfo(f"DICOM/{item.series_instance_uid}/{item.sop_instance_uid}.dcm")
                        with archive.open(entry, "w", force_zip64=True) as target:
                            async for chunk in stream([FileSpan(path, 0, path.stat().st_size)]):
                                target.write(chunk)
                                yield sink.taken()
                    finally:
                        if temporary:
                            path.unlink(missing_ok=True)
            yield sink.taken()

        if request.method == "HEAD" and first[2]:
            first[0].unlink(missing_ok=True)
        headers = {
            "Content-Type": ZIP,
            "ETag": f'W/"{tag}"',
            "Content-Disposition": f'attachment; filename="{found[0].study_instance_uid}.zip"',
            **answers.CACHE,
        }
        return streaming(request, body(), headers)


class _Sink(io.RawIOBase):
    """What `zipfile` writes to, taken out again piece by piece: a ZIP of any size in constant memory."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        """Whether it can be written: yes."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Take bytes."""
        self._parts.append(bytes(data))
        self._written += len(data)
        return len(data)

    def taken(self) -> bytes:
        """Give what came since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def streaming(request: Request, body: AsyncIterator[bytes], headers: dict[str, str]) -> Response:
    """A body whose length is not known before; of HEAD nothing is made."""
    if request.method == "HEAD":
        return Response(None, headers=headers)
    return answers.Streamed(body, headers=headers)


def instance_offers(found: Sequence[IndexedInstance], *, single: bool) -> list[Offer]:
    """Forms of whole instances: as stored, and what they can be transcoded into."""
    stored = {item.transfer_syntax_uid for item in found}
    targets = [Offer(DICOM, syntax, default=syntax == EXPLICIT_LITTLE) for syntax in INSTANCE_TARGETS]
    kept = [
        Offer(DICOM, syntax, default=False) for syntax in stored if len(stored) == 1 and syntax not in INSTANCE_TARGETS
    ]
    # Asked for with `*`: everything in the syntax it is stored in, and so never encoded again.
    dicom = [Offer(DICOM, None, default=False), *targets, *kept]
    zipped = [Offer(ZIP, item.transfer_syntax, False, item.default) for item in dicom]
    return [*both(dicom, single=single), *zipped, Offer(OCTETS, EXPLICIT_LITTLE, multipart=True)]


def _changes(instance: IndexedInstance, syntax: str | None) -> bool:
    """Whether an instance has to be encoded anew."""
    if syntax is None or instance.transfer_syntax_uid == syntax:
        return False
    without_pixels = instance.frames == 0 and syntax in INSTANCE_TARGETS[2:]
    return not (without_pixels and instance.transfer_syntax_uid == EXPLICIT_LITTLE)


def _head(syntax: str) -> dict[str, str]:
    return {"Content-Type": f"{DICOM}; transfer-syntax={syntax}"}


def _multipart_headers(boundary: str, tag: str) -> dict[str, str]:
    content_type = f'multipart/related; type="{DICOM}"; boundary={boundary}'
    return {"Content-Type": content_type, "ETag": f'W/"{tag}"', **answers.CACHE}
