"""Bulk data: the values that BulkDataURIs of the metadata point to, one by one or all of a study, series or instance.

DICOM PS3.18 §10.4.1.1.5 (bulkdata resources), §10.4.1.1.7 (pixel data resources), §8.7.3.3 (their media types).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.media_types import Offer, negotiate
from dicomweb.multipart import closing, new_boundary, part_head
from dicomweb.retrieve import answers
from dicomweb.retrieve.frames import Frames, frame_offers
from dicomweb.retrieve.instances import streaming
from dicomweb.retrieve.pieces import FileSpan, Piece, stream
from dicomweb.retrieve.pixel_layout import PixelLayout
from dicomweb.retrieve.resources import OCTETS, Resources, both, path_of, uids_of
from dicomweb.retrieve.transfer_syntaxes import EXPLICIT_LITTLE, VIDEO_MEDIA_TYPES
from dicomweb.study_index import IndexedInstance
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError, NotFoundError

PIXEL_DATA = "7FE00010"
_ELEMENT = re.compile(r"[0-9A-F]{8}(/[1-9][0-9]{0,5}/[0-9A-F]{8}){0,32}")
_URI = re.compile(rb'"BulkDataURI":"studies/[0-9./a-z]+?/bulkdata/([0-9A-F/]+)"')


VALUE_OFFERS = tuple(both([Offer(OCTETS, EXPLICIT_LITTLE)], single=True)[::-1])
EVERY_OFFERS = (Offer(OCTETS, EXPLICIT_LITTLE, multipart=True),)


def pixel_offers(stored: str, *, single: bool) -> list[Offer]:
    """Forms of pixel data as one value: whole, or its frames; of a video its stream."""
    if stored in VIDEO_MEDIA_TYPES:
        return [Offer(OCTETS, stored), Offer(VIDEO_MEDIA_TYPES[stored], stored)]
    return [*VALUE_OFFERS, *(item for item in frame_offers(stored, single=single) if item.media_type != OCTETS)]


class BulkData:
    """The bulkdata and pixeldata resources."""

    def __init__(self, resources: Resources, frames: Frames) -> None:
        self._in, self._frames = resources, frames

    async def value(self, request: Request, context: AccessContext) -> Response:
        """GET …/bulkdata/{path}: one value."""
        instance = (await self._in.index.instances(context, *uids_of(request)))[0]
        element = request.path_params["path"].upper()
        if not _ELEMENT.fullmatch(element):
            raise NotFoundError("No such bulk data")
        if element == PIXEL_DATA and instance.frames:
            return await self._pixels(request, instance)
        offer = negotiate(request, VALUE_OFFERS)
        tag = answers.etag_of("bulk", str(offer), instance.orthanc_id, element)
        known = answers.not_modified(request, tag)
        if known is not None:
            return known
        return self._one(request, await self._element(instance, element), offer, tag)

    async def _pixels(self, request: Request, instance: IndexedInstance) -> Response:
        """Pixel data as one value: the element itself where it is native, all frames in a row otherwise."""
        stored = instance.transfer_syntax_uid
        if stored in VIDEO_MEDIA_TYPES:
            return await self.video(request, instance, pixel_offers(stored, single=True))
        offer = negotiate(request, pixel_offers(stored, single=instance.frames == 1))
        tag = answers.etag_of("bulk", str(offer), instance.orthanc_id, PIXEL_DATA)
        known = answers.not_modified(request, tag)
        if known is not None:
            return known
        if offer.media_type != OCTETS:
            numbers = range(1, instance.frames + 1)
            return await self._frames.send(request, instance, numbers, offer, tag)
        path, layout = await self._in.files.layout(instance)
        if layout.direct and layout.length:
            return self._one(request, [FileSpan(path, layout.offset, layout.length)], offer, tag)
        first = await self._frames.made(path, layout, [1], EXPLICIT_LITTLE)
        body = self._all_frames(path, layout, instance.frames, first[0])
        content_type = f"{OCTETS}; transfer-syntax={EXPLICIT_LITTLE}"
        if not offer.multipart:
            return streaming(request, body, {"Content-Type": content_type, "ETag": f'"{tag}"', **answers.CACHE})
        boundary = new_boundary()

        async def wrapped() -> AsyncIterator[bytes]:
            yield part_head(boundary, {"Content-Type": content_type})
            async for chunk in body:
                yield chunk
            yield closing(boundary)

        return streaming(request, wrapped(), _headers(boundary, tag))

    async def video(self, request: Request, instance: IndexedInstance, offers: list[Offer]) -> Response:
        """Return a video as it was stored: the fragments in a row are one bit stream; ranges are possible."""
        offer = negotiate(request, offers)
        tag = answers.etag_of("video", str(offer), instance.orthanc_id)
        known = answers.not_modified(request, tag)
        if known is not None:
            return known
        path, layout = await self._in.files.layout(instance)
        pieces: list[Piece] = [FileSpan(path, start, size) for frame in layout.spans for start, size in frame]
        if not pieces:
            raise NotFoundError("No such bulk data")
        return answers.single(request, pieces, offer.media_type, tag)

    async def _all_frames(self, path: Path, layout: PixelLayout, frames: int, first: bytes) -> AsyncIterator[bytes]:
        yield first
        for number in range(2, frames + 1):
            yield (await self._frames.made(path, layout, [number], EXPLICIT_LITTLE))[0]

    def _one(self, request: Request, content: list[Piece], offer: Offer, tag: str) -> Response:
        content_type = f"{OCTETS}; transfer-syntax={EXPLICIT_LITTLE}"
        made = [Path(piece.path) for piece in content if isinstance(piece, FileSpan) and piece.whole]
        after = made[0].unlink if made else None
        if not offer.multipart:
            return answers.single(request, content, content_type, tag, after=after)
        boundary = new_boundary()
        head = {"Content-Type": content_type}
        pieces = [part_head(boundary, head), *content, closing(boundary)]
        length = sum(piece.length if isinstance(piece, FileSpan) else len(piece) for piece in pieces)
        return answers.body(request, pieces, _headers(boundary, tag) | {"Content-Length": str(length)}, after=after)

    async def _element(self, instance: IndexedInstance, element: str) -> list[Piece]:
        """Value of one element; a large one as a file that is to be removed (`whole`)."""
        path = await self._in.files.path(instance)
        target = self._in.fetched.new_path()
        answer = await self._in.codec.ask("bulk", path=str(path), element=element, target=str(target))
        if not answer.head.get("found"):
            raise NotFoundError("No such bulk data")
        if answer.head.get("file"):
            return [FileSpan(target, 0, target.stat().st_size, whole=True)]
        return [answer.blobs[0]]

    async def everything(self, request: Request, context: AccessContext) -> Response:
        """GET …/bulkdata and …/pixeldata of a study, series or instance: each value in a part of its own."""
        found = await self._in.index.instances(context, *uids_of(request))
        offer = negotiate(request, EVERY_OFFERS)
        only_pixels = request.url.path.endswith("/pixeldata")
        tag = answers.etag_of("bulkdata", str(offer), str(only_pixels), *(item.orthanc_id for item in found))
        known = answers.not_modified(request, tag)
        if known is not None:
            return known
        texts = await self._in.index.metadata(context, *uids_of(request))
        if len(texts) != len(found):
            raise InvalidRequestError("The study changed meanwhile; ask again", issue_code="conflict")
        wanted = [
            (item, match.decode())
            for item, text in zip(found, texts, strict=True)
            for match in _URI.findall(zlib.decompress(text))
            if not only_pixels or match == PIXEL_DATA.encode()
        ]
        if not wanted:
            raise NotFoundError("No such bulk data")
        boundary = new_boundary()
        return streaming(request, self._parts(wanted, boundary), _headers(boundary, tag))

    async def _parts(self, wanted: list[tuple[IndexedInstance, str]], boundary: str) -> AsyncIterator[bytes]:
        base = self._in.settings.dicom_web_base
        for instance, element in wanted:
            video = VIDEO_MEDIA_TYPES.get(instance.transfer_syntax_uid) if element == PIXEL_DATA else None
            head = {
                "Content-Type": video or f"{OCTETS}; transfer-syntax={EXPLICIT_LITTLE}",
                "Content-Location": f"{base}/{path_of(instance)}/bulkdata/{element}",
            }
            yield part_head(boundary, head)
            if element != PIXEL_DATA:
                content = await self._element(instance, element)
                try:
                    async for chunk in stream(content):
                        yield chunk
                finally:
                    for piece in content:
                        if isinstance(piece, FileSpan):
                            _remove(Path(piece.path))
                continue
            path, layout = await self._in.files.layout(instance)
            if layout.direct and layout.length:
                pieces: list[Piece] = [FileSpan(path, layout.offset, layout.length)]
            else:
                pieces = [FileSpan(path, *span) for frame in layout.spans for span in frame] if video else []
            if pieces:
                async for chunk in stream(pieces):
                    yield chunk
                continue
            first = await self._frames.made(path, layout, [1], EXPLICIT_LITTLE)
            async for chunk in self._all_frames(path, layout, instance.frames, first[0]):
                yield chunk
        yield closing(boundary)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _headers(boundary: str, tag: str) -> dict[str, str]:
    content_type = f'multipart/related; type="{OCTETS}"; boundary={boundary}'
    return {"Content-Type": content_type, "ETag": f'W/"{tag}"', **answers.CACHE}
