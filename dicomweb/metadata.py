"""GET …/metadata: DICOM JSON or XML of a study, series or instance, from the index alone.

DICOM PS3.18 §10.4.1.1.2 (metadata resources), §8.7.3.3 (media types); RFC 9110 §13.1.2 (If-None-Match), §12.5.3
(Accept-Encoding). What a caller may see is decided for each request, also for one that ends as 304.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dicomweb import native_model
from dicomweb.media_types import Offer, negotiate
from dicomweb.multipart import closing, new_boundary, part_head
from dicomweb.series_metadata import Fragment, SeriesMetadata, array_of, as_gzip, as_text, as_zstd, fragment
from dicomweb.study_index import StudyIndex
from dicomweb.visibility import COUNTED
from foramen.kernel.access_context import AccessContext

OFFERS = (
    Offer("application/dicom+json"),
    Offer("application/json"),
    Offer(native_model.MEDIA_TYPE, multipart=True),
)
_PASSED_ON = {"zstd": as_zstd, "gzip": as_gzip}


class Metadata:
    """The metadata resources."""

    def __init__(self, index: StudyIndex, kept: SeriesMetadata) -> None:
        self._index, self._kept = index, kept

    async def retrieve(self, request: Request, context: AccessContext) -> Response:
        """GET or HEAD of a study's, series' or instance's metadata."""
        offer = negotiate(request, OFFERS)
        path = request.path_params
        study, series, instance = path["study"], path.get("series"), path.get("instance")
        visible = await self._index.visible(context, "r", start=3)
        revisions = await self._kept.revisions(visible, study, series)
        single = None
        if instance is not None:
            texts = await self._index.metadata(context, study, series, instance)
            single = self._kept.absolute(zlib.decompress(texts[0]))
        encoding = None if instance is not None or offer.multipart else _encoding(request)
        headers = {
            "ETag": _entity_tag(revisions, instance, str(offer)),
            "Vary": "Accept, Accept-Encoding",
            "Cache-Control": "private, no-cache",
        }
        if _unchanged(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        boundary = new_boundary()
        multipart = f'multipart/related; type="{native_model.MEDIA_TYPE}"; boundary={boundary}'
        headers["Content-Type"] = multipart if offer.multipart else offer.media_type
        if request.method == "HEAD":
            return Response(headers=headers)
        if single is not None:
            body = b"".join(native_model.xml_parts([orjson.loads(single)], boundary)) if offer.multipart else None
            return Response(body or b"[" + single + b"]", headers=headers)
        if visible.shelf is COUNTED:
            fragments = await self._kept.fragments(study, revisions)
        else:  # Nothing is kept of what is rejected.
            texts = await self._index.metadata(context, study, series)
            fragments = [fragment([self._kept.absolute(zlib.decompress(text)) for text in texts])]
        if offer.multipart:
            return StreamingResponse(_xml(fragments, boundary), headers=headers)
        parts = array_of(fragments)
        if encoding is not None:
            return Response(b"".join(_PASSED_ON[encoding](parts)), headers=headers)
        headers["Content-Length"] = str(sum(part.size for part in parts))
        return StreamingResponse(_in_pieces(as_text(parts)), headers=headers)


def _entity_tag(revisions: Sequence[tuple[str, int]], instance: str | None, representation: str) -> str:
    """Weak: the same content, whatever its encoding."""
    state = repr((list(revisions), instance, representation)).encode()
    return f'W/"{hashlib.sha256(state).hexdigest()[:32]}"'


def _unchanged(request: Request, tag: str) -> bool:
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    opaque = tag.removeprefix("W/")
    return given.strip() == "*" or opaque in re.findall(r'"[^"]*"', given)


def _encoding(request: Request) -> str | None:
    """Return the encoding to pass on: zstd before gzip, where the client takes them alike; None: plain."""
    qualities: dict[str, float] = {}
    for part in request.headers.get("accept-encoding", "").split(","):
        name, _, parameter = part.strip().partition(";")
        number = re.fullmatch(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", parameter)
        qualities[name.strip().lower()] = float(number.group(1)) if number else float(not parameter)
    best = max(_PASSED_ON, key=lambda name: qualities.get(name, qualities.get("*", 0.0)))
    return best if qualities.get(best, qualities.get("*", 0.0)) > 0 else None


async def _in_pieces(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)  # Others get their turn.


async def _xml(fragments: Sequence[Fragment], boundary: str) -> AsyncIterator[bytes]:
    """One series after the other: memory holds the JSON of one."""
    for one in fragments:
        text = b"".join(as_text([one]))
        for dataset in orjson.loads(b"[" + text + b"]"):
            head = part_head(boundary, {"Content-Type": native_model.MEDIA_TYPE})
            yield head + native_model.native_xml(dataset)
            await asyncio.sleep(0)
    yield closing(boundary)
