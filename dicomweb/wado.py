"""Stage 7 and 4: WADO-RS. Studies, series, instances, metadata, frames, bulk data, pictures; streamed, access first.

DICOM PS3.18 §10.4 (Retrieve transaction), §8.7 (media types). Client headers are never passed on to Orthanc.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
from pydicom.uid import ExplicitVRLittleEndian
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dicomweb import pixels
from dicomweb.archive import Archive, ArchiveError
from dicomweb.instance_header import bulk_value
from dicomweb.media_types import MediaRange, accepted, require
from dicomweb.multipart import closing, new_boundary, part_head
from dicomweb.study_index import IndexedInstance, StudyIndex
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError, NotAcceptableError, NotFoundError
from foramen.kernel.settings import Settings

DICOM = "application/dicom"
OCTETS = "application/octet-stream"
_THUMBNAIL = (128, 128)
_NATIVE_LITTLE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


class Wado:
    """The Retrieve transaction."""

    def __init__(self, settings: Settings, archive: Archive, index: StudyIndex) -> None:
        self._settings, self._archive, self._index = settings, archive, index
        # Two decoders at most: the rest of the machine serves everybody else.
        self._decoding = asyncio.Semaphore(2)

    async def instances(self, request: Request, context: AccessContext) -> Response:
        """GET study, series or instance as multipart application/dicom."""
        found = await self._index.instances(context, *_uids(request))
        syntax = _dicom_syntax(accepted(request))
        if syntax not in ("*", pixels.EXPLICIT_LITTLE) and any(item.transfer_syntax_uid != syntax for item in found):
            raise NotAcceptableError(
                "Available: the stored transfer syntax (transfer-syntax=*) and Explicit VR Little Endian"
            )
        # Before any header is sent, so that a fault of the archive can still become a status.
        first = await self._encoded(found[0], syntax)
        boundary = new_boundary()
        body = self._instance_parts(found, first, syntax, boundary)
        return _multipart(body, DICOM, boundary)

    async def _encoded(self, instance: IndexedInstance, syntax: str) -> bytes:
        content = await self._archive.read(instance.orthanc_id, keep=False)
        if syntax == "*" or syntax == instance.transfer_syntax_uid:
            return content
        async with self._decoding:
            return await asyncio.to_thread(pixels.to_explicit_little_endian, content)

    async def _instance_parts(
        self, found: list[IndexedInstance], first: bytes, syntax: str, boundary: str
    ) -> AsyncIterator[bytes]:
        for number, instance in enumerate(found):
            stored = syntax in ("*", instance.transfer_syntax_uid)
            used = instance.transfer_syntax_uid if stored else syntax
            yield part_head(boundary, {"Content-Type": f"{DICOM}; transfer-syntax={used}"})
            if number == 0:
                yield first
            elif not stored:
                yield await self._encoded(instance, syntax)
            else:
                async with AsyncExitStack() as stack:
                    try:
                        chunks = await stack.enter_async_context(self._archive.open(instance.orthanc_id))
                        async for chunk in chunks:
                            yield chunk
                    except httpx.HTTPError as exc:
                        raise ArchiveError("The image archive broke off") from exc
        yield closing(boundary)

    async def metadata(self, request: Request, context: AccessContext) -> Response:
        """GET …/metadata as DICOM JSON, from the index alone."""
        media_type = require(request, ("application/dicom+json", "application/json"))
        rows = await self._index.metadata(context, *_uids(request))
        base = f'"BulkDataURI":"{self._settings.dicom_web_base}/studies/'.encode()

        async def body() -> AsyncIterator[bytes]:
            separator = b"["
            for row in rows:
                # Inside a JSON string the quotes would be escaped, so this can only be the member itself.
                yield separator + zlib.decompress(row).replace(b'"BulkDataURI":"studies/', base)
                separator = b","
            yield b"]"

        return StreamingResponse(body(), media_type=media_type)

    async def frames(self, request: Request, context: AccessContext) -> Response:
        """GET …/frames/{list}: decoded little endian octets, or the stored frames when the client accepts them."""
        instance = await self._one(request, context)
        numbers = _frame_numbers(request.path_params["frames"], instance.frames)
        choice = _frame_encoding(accepted(request), instance.transfer_syntax_uid)
        if choice is None:
            raise NotAcceptableError(
                "Available: application/octet-stream, and the stored frames with transfer-syntax=*"
            )
        media_type, syntax, is_multipart = choice
        content = await self._archive.read(instance.orthanc_id)
        async with self._decoding:
            frames = await asyncio.to_thread(_frame_bytes, content, numbers, media_type != OCTETS)
        if not is_multipart:
            if len(frames) > 1:
                raise NotAcceptableError("Several frames need multipart/related")
            return Response(frames[0], media_type=f"{media_type}; transfer-syntax={syntax}")
        boundary = new_boundary()
        location = f"{self._settings.dicom_web_base}/{_path(instance)}/frames"

        async def body() -> AsyncIterator[bytes]:
            for number, frame in zip(numbers, frames, strict=True):
                headers = {
                    "Content-Type": f"{media_type}; transfer-syntax={syntax}",
                    "Content-Location": f"{location}/{number}",
                }
                yield part_head(boundary, headers)
                yield frame
            yield closing(boundary)

        return _multipart(body(), media_type, boundary, syntax)

    async def bulk_data(self, request: Request, context: AccessContext) -> Response:
        """GET …/bulkdata/{path}: the value a BulkDataURI of the metadata points to."""
        instance = await self._one(request, context)
        path = request.path_params["path"].upper()
        content = await self._archive.read(instance.orthanc_id)
        if path == "7FE00010" and instance.frames:
            async with self._decoding:
                frames = await asyncio.to_thread(_frame_bytes, content, list(range(1, instance.frames + 1)), False)
            value: bytes | None = b"".join(frames)
        else:
            value = bulk_value(await asyncio.to_thread(pixels.parse, content), path)
        if value is None:
            raise NotFoundError("No such bulk data")
        choice = next((item for item in accepted(request) if item.admits(OCTETS)), None)
        if choice is None:
            raise NotAcceptableError(f"Available: {OCTETS}")
        if not choice.multipart:
            return Response(value, media_type=OCTETS)
        boundary = new_boundary()
        whole = part_head(boundary, {"Content-Type": OCTETS}) + value + closing(boundary)
        return Response(whole, headers={"Content-Type": f'multipart/related; type="{OCTETS}"; boundary={boundary}'})

    async def rendered(self, request: Request, context: AccessContext) -> Response:
        """GET …/rendered and …/thumbnail at every level; of a study or series the middle image stands for all."""
        is_thumbnail = request.url.path.endswith("/thumbnail")
        media_type = require(request, ("image/jpeg", "image/png"))
        found = [item for item in await self._index.instances(context, *_uids(request)) if item.frames]
        if not found:
            raise NotAcceptableError("There is no image to render")
        instance = found[len(found) // 2]
        middle = (instance.frames + 1) // 2 if is_thumbnail or len(found) > 1 else 1
        number = _frame_numbers(request.path_params.get("frames", str(middle)), instance.frames)[0]
        rendering = _rendering(request, media_type, _THUMBNAIL if is_thumbnail else None)
        content = await self._archive.read(instance.orthanc_id)
        async with self._decoding:
            picture = await asyncio.to_thread(_render, content, number, rendering)
        return Response(picture, media_type=media_type, headers={"Cache-Control": "private, max-age=3600"})

    async def _one(self, request: Request, context: AccessContext) -> IndexedInstance:
        return (await self._index.instances(context, *_uids(request)))[0]


def _uids(request: Request) -> tuple[str, str | None, str | None]:
    parameters = request.path_params
    return parameters["study"], parameters.get("series"), parameters.get("instance")


def _path(instance: IndexedInstance) -> str:
    uids = (instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid)
    return "studies/{}/series/{}/instances/{}".format(*uids)


def _dicom_syntax(ranges: list[MediaRange]) -> str:
    """Transfer syntax to answer with; without a parameter Explicit VR Little Endian (PS3.18 §8.7.3.5.2)."""
    for item in ranges:
        if item.admits(DICOM):
            return item.transfer_syntax or str(ExplicitVRLittleEndian)
    raise NotAcceptableError('Available: multipart/related; type="application/dicom"')


def _frame_numbers(text: str, frames: int) -> list[int]:
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text):
        raise InvalidRequestError("The frame list must be numbers from 1, separated by commas")
    numbers = [int(part) for part in text.split(",")]
    if not all(1 <= number <= frames for number in numbers):
        raise NotFoundError("No such frame")
    if len(set(numbers)) < len(numbers):
        raise InvalidRequestError("A frame may be asked for once in a request")
    return numbers


def _frame_encoding(ranges: list[MediaRange], stored: str) -> tuple[str, str, bool] | None:
    """Return (media type, transfer syntax, multipart) of the best range that can be met; None when none can."""
    compressed = pixels.COMPRESSED_MEDIA_TYPES.get(stored)
    for item in ranges:
        is_any = item.media_type == "*/*"
        if compressed and not is_any and item.admits(compressed) and item.transfer_syntax in (None, "*", stored):
            return compressed, stored, item.multipart
        if item.admits(OCTETS) and item.transfer_syntax in (None, "*", *_NATIVE_LITTLE):
            return OCTETS, pixels.EXPLICIT_LITTLE, item.multipart or is_any
    return None


def _frame_bytes(content: bytes, numbers: list[int], stored: bool) -> list[bytes]:
    dataset = pixels.parse(content)
    read = pixels.stored_frame if stored else pixels.little_endian_frame
    return [read(dataset, number) for number in numbers]


def _render(content: bytes, number: int, rendering: pixels.Rendering) -> bytes:
    return pixels.rendered(pixels.parse(content), number, rendering)


def _rendering(request: Request, media_type: str, viewport: tuple[int, int] | None) -> pixels.Rendering:
    query = request.query_params
    window = None
    try:
        if "window" in query:
            center, width, *function = query["window"].split(",")
            if function not in ([], ["linear"]) or float(width) < 1:
                raise ValueError("window")
            window = (float(center), float(width))
        if "viewport" in query:
            columns, rows = (int(part) for part in query["viewport"].split(",")[:2])
            if not (1 <= columns <= 8192 and 1 <= rows <= 8192):
                raise ValueError("viewport")
            viewport = (columns, rows)
        quality = int(query.get("quality", "90"))
        if not 1 <= quality <= 100:
            raise ValueError("quality")
    except ValueError as exc:
        raise InvalidRequestError(
            "window=center,width[,linear], viewport=columns,rows or quality=1..100 is malformed"
        ) from exc
    return pixels.Rendering(media_type, window, viewport, quality)


def _multipart(body: AsyncIterator[bytes], media_type: str, boundary: str, syntax: str | None = None) -> Response:
    suffix = f"; transfer-syntax={syntax}" if syntax else ""
    content_type = f'multipart/related; type="{media_type}"{suffix}; boundary={boundary}'
    return StreamingResponse(body, headers={"Content-Type": content_type})
