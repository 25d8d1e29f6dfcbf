"""Answers of the Retrieve transaction: validators, 304, ranges, HEAD; a body is read only as far as it is asked for.

RFC 9110 §8.8 (validators), §9.3.2 (HEAD), §13.1 (If-None-Match, If-Range), §14 (Range); RFC 9111 (private caches only).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dicomweb.multipart import closing, part_head
from dicomweb.retrieve.pieces import Piece, cut, is_small, read, read_now, stream, total
from foramen.kernel.errors import InteropError

CACHE = {"Cache-Control": "private, no-cache", "Vary": "Accept, Authorization"}
"""Kept by the client's own cache only, and asked about each time: access may have changed meanwhile."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class RangeNotSatisfiableError(InteropError):
    """No byte of the range exists (RFC 9110 §15.5.17)."""

    status = 416
    issue_code = "value"


def etag_of(*parts: str) -> str:
    """Entity tag of a representation; what is stored never changes, so names and form decide it."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def not_modified(request: Request, tag: str) -> Response | None:
    """304 when the client has this very representation."""
    known = request.headers.get("if-none-match")
    if known is None:
        return None
    tags = {item.strip().removeprefix("W/").strip('"') for item in known.split(",")}
    return Response(status_code=304, headers={"ETag": f'"{tag}"', **CACHE}) if tags & {tag, "*"} else None


def single(
    request: Request,
    pieces: Sequence[Piece],
    content_type: str,
    tag: str,
    *,
    headers: dict[str, str] | None = None,
    after: Callable[[], None] | None = None,
) -> Response:
    """One representation, whole or the range asked for.

    Raises
    ------
    RangeNotSatisfiableError
        The range lies beyond the end.
    """
    length = total(pieces)
    told = {"Content-Type": content_type, "ETag": f'"{tag}"', "Accept-Ranges": "bytes", **CACHE, **(headers or {})}
    status, asked = 200, _range(request, length, tag)
    if asked is not None:
        first, last = asked
        status, told["Content-Range"] = 206, f"bytes {first}-{last}/{length}"
        pieces, length = cut(pieces, first, last), last + 1 - first
    return body(request, pieces, told | {"Content-Length": str(length)}, status, after)


def multipart(
    request: Request, parts: Iterable[tuple[dict[str, str], Sequence[Piece]]], media: str, boundary: str, tag: str
) -> Response:
    """Many representations in multipart/related; its ETag is weak, as the boundary differs each time."""
    pieces: list[Piece] = []
    for head, content in parts:
        pieces.append(part_head(boundary, head))
        pieces += content
    pieces.append(closing(boundary))
    told = {"Content-Type": f"multipart/related; {media}; boundary={boundary}", "ETag": f'W/"{tag}"', **CACHE}
    return body(request, pieces, told | {"Content-Length": str(total(pieces))})


def body(
    request: Request,
    pieces: Sequence[Piece],
    headers: dict[str, str],
    status: int = 200,
    after: Callable[[], None] | None = None,
) -> Response:
    """Send pieces; for HEAD none is read."""
    task = BackgroundTask(after) if after is not None else None
    if request.method == "HEAD":
        return Response(None, status, headers=headers, background=task)
    length = int(headers["Content-Length"])
    if is_small(length):
        return _InOnePiece(pieces, length, Response(None, status, headers=headers, background=task))
    return Streamed(stream(pieces), status, headers=headers, background=task)


class Streamed(StreamingResponse):
    """A body of chunks; a bytearray is one too, and is not copied first."""

    async def stream_response(self, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class _InOnePiece(Response):
    """A small body, read when it is sent, and sent as one message: a stream costs more than what it sends."""

    def __init__(self, pieces: Sequence[Piece], length: int, told: Response) -> None:
        self.status_code, self.background, self.raw_headers = told.status_code, told.background, told.raw_headers
        self.body = b""
        self._pieces, self._length = pieces, length

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        content: bytearray | bytes | None = read_now(self._pieces, self._length)
        if content is None:
            content = await asyncio.to_thread(read, self._pieces)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # As it is: Granian copies bytes and bytearrays at once, and a memoryview byte by byte.
        await send({"type": "http.response.body", "body": content})
        if self.background is not None:
            await self.background()


def _range(request: Request, length: int, tag: str) -> tuple[int, int] | None:
    """Return first and last byte of one range; several, or other units, are answered whole (RFC 9110 §14.2)."""
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    condition = request.headers.get("if-range")
    if match is None or request.method == "HEAD" or (condition is not None and condition.strip() != f'"{tag}"'):
        return None
    start, end = match.groups()
    if not start and not end:
        return None
    if not start:
        first, last = max(length - int(end), 0), length - 1
        valid = int(end) > 0 and length > 0
    else:
        first, last = int(start), min(int(end), length - 1) if end else length - 1
        if end and int(end) < first:
            return None
        valid = first < length
    if not valid:
        raise RangeNotSatisfiableError("The range lies beyond the end", headers={"Content-Range": f"bytes */{length}"})
    return first, last
