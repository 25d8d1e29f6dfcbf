"""A Store request's body, wholly received before anything is done with it (DICOM PS3.18 §10.5.1, §8.6).

A slow sender is given time as long as something comes; a body that breaks off, lies about its length, or is longer
than allowed changes nothing and leaves no trace but its audit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.requests import ClientDisconnect, Request

from dicomweb.multipart import Part, Spool, boundary_of, read_parts
from foramen.kernel.errors import (
    InteropError,
    InvalidRequestError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
    UpstreamError,
)
from foramen.kernel.settings import Settings

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
BODIES = (DICOM, DICOM_JSON, DICOM_XML)


class SlowSenderError(InteropError):
    """Nothing came for too long (RFC 9110 §15.5.9)."""

    status = 408
    issue_code = "timeout"


class NoSpaceError(UpstreamError):
    """There is no room to receive into."""

    issue_code = "no-store"


async def receive(
    request: Request, spool: Spool, settings: Settings, whole: Callable[[Part], None] | None = None
) -> tuple[str, list[Part]]:
    """Receive the body. Returns what it consists of (`DICOM`, `DICOM_JSON` or `DICOM_XML`) and its parts.

    Parameters
    ----------
    whole : told of each part of several that are DICOM files when it has come to its end, but for the last

    Raises
    ------
    InvalidRequestError
        Malformed or broken off.
    PayloadTooLargeError
        Longer than `settings.max_stow_bytes`.
    UnsupportedMediaTypeError
        Another media type, or a content coding.
    SlowSenderError
        Nothing came for `settings.stow_idle_s`.
    NoSpaceError
        The disk to receive into is full.
    """
    limit = settings.max_stow_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise PayloadTooLargeError(f"The body is larger than {limit} bytes")
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        # What it would become is not known before it is there: a small body could be a very large one.
        raise UnsupportedMediaTypeError("A content coding of the body is not supported")
    content_type = request.headers.get("content-type", "")
    alone = content_type.partition(";")[0].strip().lower()
    stream = _stream(request, settings.stow_idle_s)
    try:
        if alone in BODIES:
            return alone, [await _single_part(stream, content_type, limit, spool)]
        kind, boundary = boundary_of(content_type)
        if kind not in ("", *BODIES):
            raise UnsupportedMediaTypeError("Only parts of application/dicom, +json and +xml are stored")
        is_dicom = kind in ("", DICOM)
        return kind or DICOM, await read_parts(stream, boundary, limit, spool, whole if is_dicom else None)
    except OSError as exc:
        raise NoSpaceError("There is no room to receive the body", headers={"Retry-After": "30"}) from exc


async def _stream(request: Request, idle_s: float) -> AsyncIterator[bytes]:
    chunks = request.stream().__aiter__()
    while True:
        try:
            async with asyncio.timeout(idle_s):
                chunk = await chunks.__anext__()
        except StopAsyncIteration:
            return
        except TimeoutError as exc:
            raise SlowSenderError(f"Nothing was received for {idle_s:g} s", headers={"Connection": "close"}) from exc
        except ClientDisconnect as exc:
            raise InvalidRequestError("The body is cut off", issue_code="incomplete") from exc
        yield chunk


async def _single_part(stream: AsyncIterator[bytes], content_type: str, limit: int, spool: Spool) -> Part:
    part = Part(spool, 0, headers={"content-type": content_type})
    async for chunk in stream:
        part.size += len(chunk)
        if part.size > limit:
            raise PayloadTooLargeError(f"The body is larger than {limit} bytes")
        spool.write(chunk)
    if not part.size:
        raise InvalidRequestError("The body is empty")
    return part
