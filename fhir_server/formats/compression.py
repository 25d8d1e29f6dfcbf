"""Compressed bodies, both ways: answers by Accept-Encoding, requests by Content-Encoding.

RFC 9110 §8.4, §12.5.3; gzip (RFC 1952) and Zstandard (RFC 8878). https://hl7.org/fhir/R4/http.html#compression
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import zstandard
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette_compress import CompressMiddleware, add_compress_type

from fhir_server.formats.media_types import FHIR_JSON, FHIR_XML
from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedMediaTypeError

LEAST_BYTES = 1024
"""Smaller answers are sent as they are."""
_GZIP_LEVEL = 4
_ZSTD_LEVEL = 3
_CHUNK = 1 << 16
_MAX_MEMBERS = 1024
"""Of a gzip body: enough for 64 MiB in the blocks of bgzip; each costs the setting up of a decompressor."""
_MAX_WINDOW = 1 << 23  # RFC 8878 §3.1.1.1.2: what every decoder has to take

for _media_type in (FHIR_JSON, FHIR_XML, "application/fhir+ndjson", "application/ndjson"):
    add_compress_type(_media_type)


class Compression:
    """ASGI wrapper that compresses the answers to those who ask for it; others pass by untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._by_name: dict[str, ASGIApp] = {
            "gzip": CompressMiddleware(app, minimum_size=LEAST_BYTES, zstd=False, brotli=False, gzip_level=_GZIP_LEVEL),
            "zstd": CompressMiddleware(app, minimum_size=LEAST_BYTES, gzip=False, brotli=False, zstd_level=_ZSTD_LEVEL),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"accept-encoding":
                    chosen = preferred(value)
                    if chosen:
                        await self._by_name[chosen](scope, receive, send)
                        return
                    break
        await self._app(scope, receive, send)


@lru_cache(maxsize=128)
def preferred(accept_encoding: bytes) -> str:
    """Return ``gzip`` or ``zstd``, whichever the client likes better (zstd when it does not say), or nothing."""
    wishes: dict[str, float] = {}
    for part in accept_encoding.decode("latin-1").lower().split(","):
        name, _, parameters = part.partition(";")
        key, _, text = parameters.strip().partition("=")
        try:
            quality = float(text) if key.strip() == "q" else 1.0
        except ValueError:
            quality = 0.0
        wishes[name.strip()] = quality
    anything = wishes.get("*", 0.0)
    found = [(wishes.get(name, anything), name) for name in ("gzip", "zstd")]
    quality, name = max(found)
    return name if quality > 0 and quality >= wishes.get("identity", 0.0) else ""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body of a request as it was before it was compressed.

    Parameters
    ----------
    encoding : the header Content-Encoding
    limit : most bytes it may grow to

    Raises
    ------
    PayloadTooLargeError
        413: it would grow beyond the limit; nothing beyond it was unpacked.
    InvalidRequestError
        400: it is not what the header says, or ends early.
    UnsupportedMediaTypeError
        415: another encoding, or several on top of each other.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "zstd"):
        headers = {"Accept-Encoding": "gzip, zstd"}
        raise UnsupportedMediaTypeError("The body may be compressed by gzip or zstd", headers=headers)
    try:
        return _unzstd(body, limit) if name == "zstd" else _gunzip(body, limit)
    except (zlib.error, zstandard.ZstdError) as exc:
        raise InvalidRequestError("The body is not compressed as the header says", issue_code="structure") from exc


def _gunzip(body: bytes, limit: int) -> bytes:
    found = bytearray()
    packed = memoryview(body)
    offset = members = 0
    while offset < len(packed):  # RFC 1952 §2.2: members follow one another
        members += 1
        if members > _MAX_MEMBERS:
            raise InvalidRequestError(f"The body has more than {_MAX_MEMBERS} gzip members", issue_code="too-costly")
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            # In pieces, as what is behind a member is copied each time.
            piece = packed[offset : offset + _CHUNK]
            if not piece:
                raise zlib.error("ends early")
            found += member.decompress(piece, limit - len(found) + 1)
            if len(found) > limit:
                raise _too_large(limit)
            offset += len(piece) - len(member.unused_data)
    return bytes(found)


def _unzstd(body: bytes, limit: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    size = zstandard.frame_content_size(body)
    if size < 0:  # The frame does not say how large it is: count first.
        size = _unpacked_size(decompressor, body, limit)
    if size > limit:
        raise _too_large(limit)
    # This call, unlike a stream reader, tells a truncated frame from a short one.
    return decompressor.decompress(body, max_output_size=size + 1, allow_extra_data=False)


def _unpacked_size(decompressor: zstandard.ZstdDecompressor, body: bytes, limit: int) -> int:
    size = 0
    with decompressor.stream_reader(body) as reader:
        while size <= limit and (chunk := reader.read(_CHUNK)):
            size += len(chunk)
    return size


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The unpacked body is larger than {limit} bytes")
