"""Answer with a part of a file: Range and If-Range (RFC 9110 §14), or gzip while it is sent.

Starlette's FileResponse sends a file to its end; ours ends where its record says.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

NDJSON = "application/fhir+ndjson"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CHUNK = 256 * 1024
_GZIP = 31  # zlib's window bits for a gzip header
_FAST = 1


async def file_response(request: Request, path: Path, size: int, headers: dict[str, str]) -> Response:
    """Return the response to a GET of the first `size` bytes of a file.

    Parameters
    ----------
    headers : further headers, an ETag among them
    """
    headers = {**headers, "Accept-Ranges": "bytes", "Vary": "Accept-Encoding"}
    found = _range(request, size, headers["ETag"])
    if found is not None:
        first, last = found
        if first >= size or first > last:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        headers |= {"Content-Range": f"bytes {first}-{last}/{size}", "Content-Length": str(last - first + 1)}
        return StreamingResponse(_pieces(path, first, last + 1), 206, headers, NDJSON)
    if _accepts_gzip(request):
        headers |= {"Content-Encoding": "gzip", "ETag": "W/" + headers["ETag"]}
        return StreamingResponse(_compressed(path, size), 200, headers, NDJSON)
    headers["Content-Length"] = str(size)
    return StreamingResponse(_pieces(path, 0, size), 200, headers, NDJSON)


def _range(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """Return the one range that is asked for; several at once, or those of another version, get the whole file."""
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    condition = request.headers.get("if-range")
    if match is None or match.group(0) == "bytes=-" or (condition is not None and condition != etag):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


def _accepts_gzip(request: Request) -> bool:
    for part in request.headers.get("accept-encoding", "").split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


async def _pieces(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < end:
            piece = await asyncio.to_thread(file.read, min(_CHUNK, end - start))
            if not piece:
                break
            start += len(piece)
            yield piece


async def _compressed(path: Path, size: int) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP)
    async for piece in _pieces(path, 0, size):
        packed = await asyncio.to_thread(packer.compress, piece)
        if packed:
            yield packed
    yield packer.flush()
