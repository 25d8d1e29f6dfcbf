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
from dicomweb.retrieve.codec_pool import CodecAnswer
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
_MOST_GIF_PIXELS = 64_000_000
_GIF_SIDE = 512
"""An animation of a series is fitted into this square unless a viewport says otherwise."""
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
            return await self._without_frames(request, context, one)
        found = [item for item in found if item.frames and item.transfer_syntax_uid not in VIDEO_MEDIA_TYPES]
        if not found:
            raise NotAcceptableError("There is no image to render")
        if one is None:
            wanted = [(item, list(range(1, item.frames + 1))) for item in found]
            alone = sum(len(numbers) for _, numbers in wanted) == 1
            offer = negotiate(request, offers_of_many(alone=alone, in_series="series" in request.path_params))
            if offer.media_type == "image/gif":
                return await self._animation(request, wanted, rendering_of(request.query_params, offer.media_type))
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
        return self._document(request, instance, await self._read(instance))

    async def _read(self, instance: IndexedInstance) -> CodecAnswer:
        return await self._in.codec.ask("document", path=str(await self._in.files.path(instance)))

    async def _without_frames(self, request: Request, context: AccessContext, one: IndexedInstance) -> Response:
        """A presentation state: the images it names as it shows them (PS3.3 A.33); else a document."""
        read = await self._read(one)
        if "shows" not in read.head:
            return self._document(request, one, read)
        visible = {
            (item.series_instance_uid, item.sop_instance_uid): item
            for item in await self._in.index.instances(context, one.study_instance_uid, None, None)
            if item.frames and item.transfer_syntax_uid not in VIDEO_MEDIA_TYPES
        }
        wanted: list[Picture] = []
        for series, instance, numbers in read.head["shows"]:
            item = visible.get((series, instance))
            if item is not None:
                every = range(1, item.frames + 1)
                wanted.append((item, [number for number in numbers or every if number in every]))
        wanted = [(item, numbers) for item, numbers in wanted if numbers]
        if not wanted:
            raise NotAcceptableError("There is no image to render")
        single = sum(len(numbers) for _, numbers in wanted) == 1
        offer = negotiate(request, [*(PICTURES[:2] if single else ()), *both(PICTURES[:2], single=False)])
        rendering = rendering_of(request.query_params, offer.media_type)
        if offer.multipart:
            return await self._many(request, wanted, rendering, one)
        return await self.picture(request, *wanted[0], rendering, one)

    async def _animation(self, request: Request, wanted: list[Picture], rendering: Rendering) -> Response:
        """Every image of a series in one GIF."""
        rendering = rendering if rendering.viewport else rendering.within(_GIF_SIDE)
        frames, viewport = sum(len(numbers) for _, numbers in wanted), rendering.viewport or (_GIF_SIDE, _GIF_SIDE)
        if frames > _MOST_GIF_FRAMES or frames * viewport[0] * viewport[1] > _MOST_GIF_PIXELS:
            raise NotAcceptableError("Too many images for one picture; ask for a smaller viewport, or for multipart")
        tag = _tag_of_many(wanted, rendering, None)
        known = answers.not_modified(request, tag)
        if known is not None:
            return known
        sources = [{"path": str(await self._in.files.path(item)), "numbers": numbers} for item, numbers in wanted]
        answer = await self._in.codec.ask("animation", sources=sources, rendering=rendering.plain())
        return answers.single(request, [answer.blobs[0]], rendering.media_type, tag)

    def _document(self, request: Request, instance: IndexedInstance, answer: CodecAnswer) -> Response:
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

    async def _many(
        self, request: Request, wanted: list[Picture], rendering: Rendering, state: IndexedInstance | None = None
    ) -> Response:
        tag = _tag_of_many(wanted, rendering, state)
        known = answers.not_modified(request, tag)
        if known is not None:
            return known
        boundary, media_type = new_boundary(), rendering.media_type
        base = self._in.settings.dicom_web_base
        # Before any header is sent, so that what cannot be decoded can still become a status.
        first = await self._made(wanted[0][0], wanted[0][1][:1], rendering, state)

        async def body() -> AsyncIterator[bytes]:
            content: bytes | None = first
            for item, numbers in wanted:
                for number in numbers:
                    if content is None:
                        content = await self._made(item, [number], rendering, state)
                    picture, content = content, None
                    place = f"{base}/{path_of(item)}/frames/{number}/rendered"
                    yield part_head(boundary, {"Content-Type": media_type, "Content-Location": place})
                    yield picture
            yield closing(boundary)

        content_type = f'multipart/related; type="{media_type}"; boundary={boundary}'
        return streaming(request, body(), {"Content-Type": content_type, "ETag": f'W/"{tag}"', **answers.CACHE})


def _tag(rendering: Rendering, instance: IndexedInstance, numbers: Sequence[int], state: IndexedInstance | None) -> str:
    other = state.orthanc_id if state is not None else ""
    return answers.etag_of("rendered", str(rendering), instance.orthanc_id, other, *map(str, numbers))


def _tag_of_many(wanted: list[Picture], rendering: Rendering, state: IndexedInstance | None) -> str:
    names = [f"{item.orthanc_id}:{','.join(map(str, numbers))}" for item, numbers in wanted]
    return answers.etag_of("rendered-all", str(rendering), state.orthanc_id if state is not None else "", *names)


def offers_of_many(*, alone: bool, in_series: bool) -> list[Offer]:
    """What several images can be had as: a part for each, a series as an animation; one image alone as itself."""
    offers = both(PICTURES[:2], single=alone)
    return [*offers, PICTURES[2]] if in_series else offers
