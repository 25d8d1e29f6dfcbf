"""Rendered resources and thumbnails at every level.

DICOM PS3.18 §10.4.1.1.3 (rendered), §10.4.1.1.4 (thumbnail), §8.7.4 (media types), §10.4.4 (a single part
for one item only).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.media_types import Offer, negotiate
from dicomweb.multipart import closing, new_boundary, part_head
from dicomweb.retrieve import answers
from dicomweb.retrieve.bulk_data import BulkData
from dicomweb.retrieve.frames import frame_numbers
from dicomweb.retrieve.instances import streaming
from dicomweb.retrieve.rendering_parameters import Rendering, rendering_of
from dicomweb.retrieve.resources import Resources, both, path_of, uids_of
from dicomweb.retrieve.transfer_syntaxes import VIDEO_MEDIA_TYPES
from dicomweb.study_index import IndexedInstance
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import NotAcceptableError

PICTURES = (Offer("image/jpeg"), Offer("image/png"), Offer("image/gif"))
_MOST_GIF_FRAMES = 1000
Picture = tuple[IndexedInstance, list[int]]


class Rendered:
    """Pictures and readable documents."""

    def __init__(self, resources: Resources, bulk: BulkData) -> None:
        self._in, self._bulk = resources, bulk

    async def thumbnail(self, request: Request, context: AccessContext) -> Response:
        """GET …/thumbnail: the middle image stands for all; at most 128 pixels unless a viewport says so."""
        found = [item for item in await self._in.index.instances(context, *uids_of(request)) if item.frames]
        found = [item for item in found if item.transfer_syntax_uid not in VIDEO_MEDIA_TYPES]
        if not found:
            raise NotAcceptableError("There is no image to render")
        offer = negotiate(request, PICTURES)
        instance = found[len(found) // 2]
        frames = request.path_params.get("frames", str((instance.frames + 1) // 2))
        number = frame_numbers(frames, instance.frames)[0]
        rendering = rendering_of(request.query_params, offer.media_type, thumbnail=True)
        return await self.picture(request, instance, [number], rendering)

    async def answer(self, request: Request, context: AccessContext) -> Response:
        """GET …/rendered of a study, series, instance or frames."""
        found = await self._in.index.instances(context, *uids_of(request))
        one = found[0] if "instance" in request.path_params else None
        if one is not None and one.transfer_syntax_uid in VIDEO_MEDIA_TYPES:
            return await self._bulk.video(request, one, [Offer(VIDEO_MEDIA_TYPES[one.transfer_syntax_uid])])
        if one is not None and not one.frames:
            return await self.document(request, one)
        found = [item for item in found if item.frames and item.transfer_syntax_uid not in VIDEO_MEDIA_TYPES]
        if not found:
            raise NotAcceptableError("There is no image to render")
        if one is None:
            offer = negotiate(request, both(PICTURES[:2], single=False))
            wanted = [(item, list(range(1, item.frames + 1))) for item in found]
        else:
            listed = request.path_params.get("frames")
            numbers = frame_numbers(listed, one.frames) if listed else list(range(1, one.frames + 1))
            offers = both(PICTURES, single=True)
            if listed and len(numbers) > 1:
                offers = [item for item in offers if item.multipart or item.media_type == "image/gif"]
            elif len(numbers) == 1 or not listed:  # A plain request for a picture gets one, as browsers need it.
                offers = [*PICTURES, *both(PICTURES[:2], single=False)]
            offer = negotiate(request, offers)
            wanted = [(one, numbers)]
        rendering = rendering_of(request.query_params, offer.media_type)
        if offer.multipart:
            return await self._many(request, wanted, rendering)
        numbers = wanted[0][1] if offer.media_type == "image/gif" else wanted[0][1][:1]
        if len(numbers) > _MOST_GIF_FRAMES:
            raise NotAcceptableError("Too many frames for one picture; ask for frames")
        return await self.picture(request, wanted[0][0], numbers, rendering)

    async def picture(
        self,
        request: Request,
        instance: IndexedInstance,
        numbers: Sequence[int],
        rendering: Rendering,
        state: IndexedInstance | None = None,
    ) -> Response:
        """One picture, of one frame or of an animation."""
        tag = _tag(rendering, instance, numbers, state)
        known = answers.not_modified(request, tag)
        if known is not None:
            return known
        content = await self._made(instance, numbers, rendering, state)
        return answers.single(request, [content], rendering.media_type, tag)

    async def document(self, request: Request, instance: IndexedInstance) -> Response:
        """Return a structured report as HTML, or an encapsulated document as it is."""
        path = await self._in.files.path(instance)
        answer = await self._in.codec.ask("document", path=str(path))
        media_type = str(answer.head["mediaType"])
        offer = negotiate(request, [Offer(media_type.partition(";")[0])])
        tag = answers.etag_of("document", str(offer), instance.orthanc_id)
        headers = {
            # A document of somebody else must not run scripts under our origin.
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
        }
        known = answers.not_modified(request, tag)
        return known or answers.single(request, [answer.blobs[0]], media_type, tag, headers=headers)

    async def _made(
        self,
        instance: IndexedInstance,
        numbers: Sequence[int],
        rendering: Rendering,
        state: IndexedInstance | None = None,
    ) -> bytes:
        path = await self._in.files.path(instance)
        other = str(await self._in.files.path(state)) if state is not None else None
        answer = await self._in.codec.ask(
            "render", path=str(path), numbers=list(numbers), rendering=rendering.plain(), state=other
        )
        return answer.blobs[0]

    async def _many(self, request: Request, wanted: list[Picture], rendering: Rendering) -> Response:
        names = [f"{item.orthanc_id}:{len(numbers)}:{numbers[0]}" for item, numbers in wanted]
        tag = answers.etag_of("rendered-all", str(rendering), *names)
        known = answers.not_modified(request, tag)
        if known is not None:
            return known
        boundary, media_type = new_boundary(), rendering.media_type
        base = self._in.settings.dicom_web_base
        # Before any header is sent, so that what cannot be decoded can still become a status.
        first = await self._made(wanted[0][0], wanted[0][1][:1], rendering)

        async def body() -> AsyncIterator[bytes]:
            content: bytes | None = first
            for item, numbers in wanted:
                for number in numbers:
                    picture = content if content is not None else await self._made(item, [number], rendering)
                    content = None
                    place = f"{base}/{path_of(item)}/frames/{number}/rendered"
                    yield part_head(boundary, {"Content-Type": media_type, "Content-Location": place})
                    yield picture
            yield closing(boundary)

        content_type = f'multipart/related; type="{media_type}"; boundary={boundary}'
        return streaming(request, body(), {"Content-Type": content_type, "ETag": f'W/"{tag}"', **answers.CACHE})


def _tag(rendering: Rendering, instance: IndexedInstance, numbers: Sequence[int], state: IndexedInstance | None) -> str:
    other = state.orthanc_id if state is not None else ""
    return answers.etag_of("rendered", str(rendering), instance.orthanc_id, other, *map(str, numbers))
