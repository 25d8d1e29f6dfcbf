"""multipart/related in both directions, streaming (RFC 2046 §5.1, RFC 2387; DICOM PS3.18 §8.6.1)."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from foramen.kernel.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedMediaTypeError

_SPOOL_BYTES = 8 * 1024 * 1024
_MOST_PARTS = 20_000


@dataclass(slots=True)
class Part:
    """One received part; the body lies in memory when small, otherwise in an unnamed temporary file."""

    body: IO[bytes]
    size: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def media_type(self) -> str:
        """Media type of the part, empty when it has none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def new_boundary() -> str:
    """Return a boundary that no body contains."""
    return f"foramen-{secrets.token_hex(16)}"


def part_head(boundary: str, headers: dict[str, str]) -> bytes:
    """Opening of one part: delimiter and headers."""
    lines = [f"\r\n--{boundary}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("ascii")


def closing(boundary: str) -> bytes:
    """End of the body."""
    return f"\r\n--{boundary}--\r\n".encode("ascii")


def boundary_of(content_type: str) -> tuple[str, bytes]:
    """Return (`type` parameter, boundary) of a multipart/related Content-Type.

    Raises
    ------
    UnsupportedMediaTypeError
        Another media type.
    InvalidRequestError
        No usable boundary.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/related":
        raise UnsupportedMediaTypeError("The body must be multipart/related or application/dicom")
    boundary = options.get(b"boundary", b"")
    if not re.fullmatch(rb"[0-9A-Za-z'()+_,\-./:=? ]{1,256}", boundary):
        raise InvalidRequestError("The Content-Type has no usable boundary")
    return options.get(b"type", b"").decode("latin-1").lower(), boundary


class _Collector:
    """Callbacks of python-multipart: one `Part` after the other."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._name, self._value = bytearray(), bytearray()

    def on_part_begin(self) -> None:
        if len(self.parts) >= _MOST_PARTS:
            raise PayloadTooLargeError(f"More than {_MOST_PARTS} parts")
        body = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115  `close_parts` closes it
        self.parts.append(Part(body))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].body.write(memoryview(data)[start:end])
        self.parts[-1].size += end - start

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self.parts[-1].headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()


async def read_parts(stream: AsyncIterator[bytes], boundary: bytes, limit_bytes: int) -> list[Part]:
    """Receive a whole multipart body before anything is done with it: a malformed one changes nothing.

    Raises
    ------
    InvalidRequestError
        Malformed, empty or cut off before its closing delimiter.
    PayloadTooLargeError
        Longer than `limit_bytes`.
    """
    collector = _Collector()
    ended = False

    def on_end() -> None:
        nonlocal ended
        ended = True

    names = ("on_part_begin", "on_part_data", "on_header_field", "on_header_value", "on_header_end")
    callbacks = {name: getattr(collector, name) for name in names} | {"on_end": on_end}
    received = 0
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        async for chunk in stream:
            received += len(chunk)
            if received > limit_bytes:
                raise PayloadTooLargeError(f"The body is larger than {limit_bytes} bytes")
            if not ended and chunk:
                parser.write(chunk)
        if not ended:
            raise InvalidRequestError("The multipart body ends before its closing delimiter")
    except FormParserError as exc:
        close_parts(collector.parts)
        raise InvalidRequestError("The multipart body is malformed") from exc
    except BaseException:
        close_parts(collector.parts)
        raise
    for part in collector.parts:
        part.body.seek(0)
    return collector.parts


def close_parts(parts: list[Part]) -> None:
    """Release the temporary files."""
    for part in parts:
        part.body.close()
