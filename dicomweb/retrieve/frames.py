"""Frames of an instance: bytes at an offset where they can be, decoded or encoded in a codec process where not.

DICOM PS3.18 §10.4.1.1.6 (frames), §8.7.3.3 and Table 8.7.3-5 (media types of frames).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.audit_windows import PATIENT
from dicomweb.media_types import Offer, accept_of, choose
from dicomweb.multipart import closing, new_boundary, part_head
from dicomweb.retrieve import answers
from dicomweb.retrieve.instances import streaming
from dicomweb.retrieve.pieces import FileSpan, Piece
from dicomweb.retrieve.pixel_layout import PixelLayout, Spans
from dicomweb.retrieve.resources import OCTETS, Resources, both, path_of
from dicomweb.retrieve.transfer_syntaxes import (
    EXPLICIT_LITTLE,
    FRAME_MEDIA_TYPES,
    JPEG_BASELINE,
    LOSSLESS_TARGETS,
    VIDEO_MEDIA_TYPES,
)
from dicomweb.study_index import IndexedInstance
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InvalidRequestError, NotFoundError

_FRAMES_AT_ONCE = 4


def frame_numbers(text: str, frames: int) -> list[int]:
    """Read a list of frame numbers.

    Raises
    ------
    InvalidRequestError
        Not a list of numbers, or one twice.
    NotFoundError
        A frame that is not there.
    """
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text):
        raise InvalidRequestError("The frame list must be numbers from 1, separated by commas", issue_code="value")
    numbers = [int(part) for part in text.split(",")]
    if not all(1 <= number <= frames for number in numbers):
        raise NotFoundError("No such frame")
    if len(set(numbers)) < len(numbers):
        raise InvalidRequestError("A frame may be asked for once in a request", issue_code="value")
    return numbers


@lru_cache(maxsize=256)
def chosen(accept: str, stored: str, single: bool) -> Offer:
    """Return the form a client wants of frames stored in a transfer syntax; see `media_types.choose`."""
    return choose(accept, frame_offers(stored, single=single))


def frame_offers(stored: str, *, single: bool) -> list[Offer]:
    """Forms of frames: decoded, as stored, and what they can be encoded into without loss (JPEG when asked by name)."""
    offers = [Offer(OCTETS, EXPLICIT_LITTLE)]
    if stored in FRAME_MEDIA_TYPES:
        offers.append(Offer(FRAME_MEDIA_TYPES[stored], stored))
    elif stored in VIDEO_MEDIA_TYPES:
        return []
    offers += [Offer(FRAME_MEDIA_TYPES[syntax], syntax) for syntax in LOSSLESS_TARGETS if syntax != stored]
    if stored != JPEG_BASELINE:
        offers.append(Offer(FRAME_MEDIA_TYPES[JPEG_BASELINE], JPEG_BASELINE, default=False))
    return both(offers, single=single)


class Frames:
    """The frames resource, and the frames of other resources."""

    def __init__(self, resources: Resources) -> None:
        self._in = resources

    async def answer(self, request: Request, context: AccessContext) -> Response:
        """GET …/frames/{list}."""
        names = request.path_params
        instance = await self._in.plans.instance(context, names["study"], names["series"], names["instance"])
        request.scope[PATIENT] = instance.patient_ref
        numbers = frame_numbers(names["frames"], instance.frames)
        offer = chosen(accept_of(request), instance.transfer_syntax_uid, len(numbers) == 1)
        tag = answers.etag_of("frames", str(offer), instance.orthanc_id, *map(str, numbers))
        return answers.not_modified(request, tag) or await self.send(request, instance, numbers, offer, tag)

    async def send(
        self, request: Request, instance: IndexedInstance, numbers: Sequence[int], offer: Offer, tag: str
    ) -> Response:
        """Answer with frames in a form of `frame_offers`."""
        syntax = offer.transfer_syntax or EXPLICIT_LITTLE
        path, layout = await self._in.files.layout(instance)
        base = self._in.settings.dicom_web_base
        heads = [frame_head(base, instance, number, offer) for number in numbers]
        pieces = frame_pieces(path, layout, numbers, syntax)
        if not offer.multipart:
            content = pieces[0] if pieces is not None else [(await self.made(path, layout, numbers, syntax))[0]]
            return answers.single(request, content, heads[0]["Content-Type"], tag)
        boundary = new_boundary()
        media = multipart_media(offer)
        if pieces is not None:
            return answers.multipart(request, zip(heads, pieces, strict=True), media, boundary, tag)
        first = await self.made(path, layout, numbers[:_FRAMES_AT_ONCE], syntax)

        async def body() -> AsyncIterator[bytes]:
            for start in range(0, len(numbers), _FRAMES_AT_ONCE):
                wanted = numbers[start : start + _FRAMES_AT_ONCE]
                frames = first if start == 0 else await self.made(path, layout, wanted, syntax)
                for place, frame in enumerate(frames):
                    yield part_head(boundary, heads[start + place])
                    yield frame
            yield closing(boundary)

        headers = {"Content-Type": f"multipart/related; {media}; boundary={boundary}", "ETag": f'W/"{tag}"'}
        return streaming(request, body(), headers | answers.CACHE)

    async def made(self, path: Path, layout: PixelLayout, numbers: Sequence[int], syntax: str) -> list[bytes]:
        """Frames decoded or encoded by a codec process."""
        kind = "native" if syntax == EXPLICIT_LITTLE else "stored" if syntax == layout.transfer_syntax else syntax
        answer = await self._in.codec.ask("frames", path=str(path), numbers=list(numbers), syntax=kind)
        return answer.blobs


def frame_pieces(path: Path, layout: PixelLayout, numbers: Sequence[int], syntax: str) -> list[list[Piece]] | None:
    """Frames as stretches of the file; None when they have to be made."""
    found: list[list[Piece]] = []
    for number in numbers:
        spans = frame_spans_in(layout, number, syntax)
        if spans is None:
            return None
        found.append([FileSpan(path, start, size) for start, size in spans])
    return found


def frame_spans_in(layout: PixelLayout, number: int, syntax: str) -> Spans | None:
    """Where one frame lies in the file in this transfer syntax, as (offset, length); None when it has to be made."""
    if not (layout.direct if syntax == EXPLICIT_LITTLE else layout.transfer_syntax == syntax and layout.spans):
        return None
    return layout.frame(number) if number <= layout.frames else None


def frame_head(base: str, instance: IndexedInstance, number: int, offer: Offer) -> dict[str, str]:
    """Headers of the part that holds one frame."""
    return {
        "Content-Type": f"{offer.media_type}; transfer-syntax={offer.transfer_syntax or EXPLICIT_LITTLE}",
        "Content-Location": f"{base}/{path_of(instance)}/frames/{number}",
    }


def multipart_media(offer: Offer) -> str:
    """Parameters of multipart/related that tell what its parts are."""
    return f'type="{offer.media_type}"; transfer-syntax={offer.transfer_syntax or EXPLICIT_LITTLE}'
