"""An HTTP client for benchmarks that costs as little as Python allows: it shares the processors with what it measures.

RFC 9112 §6 (Content-Length, chunked, until the end). Bodies are received whole and thrown away. `http.client` needs
as much of a processor for a frame of half a megabyte as the server that sends it: ratios told of the client then.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import urlsplit

from foramen.kernel.errors import UpstreamError

_BUFFER_BYTES = 1024 * 1024
_HEAD_BYTES = 64 * 1024


class LeanConnection:
    """One kept connection; every request has the same headers.

    Parameters
    ----------
    base : origin and path before every other
    """

    def __init__(self, base: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(base)
        self._path = parts.path
        told = {"Host": parts.netloc, **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in told.items()) + "\r\n"
        try:
            self._socket = socket.create_connection((str(parts.hostname), parts.port or 80), timeout=300)
        except OSError as exc:
            raise UpstreamError("The server does not answer") from exc
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._at, self._end = 0, 0

    def __enter__(self) -> LeanConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def get(self, path: str) -> int:
        """Ask, and receive the whole body; returns its bytes.

        Raises
        ------
        UpstreamError
            An answer other than 200, or one that breaks off.
        """
        try:
            self._socket.sendall(f"GET {self._path}{path} HTTP/1.1\r\n{self._head}".encode())
            status, *lines = self._until(b"\r\n\r\n").split(b"\r\n")
            if status.split(b" ", 2)[1] != b"200":
                raise UpstreamError(f"The server answered {status.split(b' ', 2)[1].decode('latin-1')}")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
                return self._chunks()
            if b"content-length" not in headers:
                return self._rest()
            return self._skip(int(headers[b"content-length"]))
        except (OSError, ValueError, LookupError) as exc:
            raise UpstreamError("The server broke off") from exc

    def _rest(self) -> int:
        """A body that ends with the connection (§6.3, rule 8): Orthanc's for a study; nothing can be asked after it."""
        size = self._end - self._at
        while received := self._socket.recv_into(self._view):
            size += received
        return size

    def _chunks(self) -> int:
        size = 0
        while length := int(self._until(b"\r\n").split(b";")[0], 16):
            size += self._skip(length)
            self._skip(2)
        while self._until(b"\r\n"):  # Trailers.
            pass
        return size

    def _until(self, end: bytes) -> bytes:
        """Return what comes before `end`, and pass both."""
        while (place := self._buffer.find(end, self._at, self._end)) < 0:
            if self._at:
                rest = self._end - self._at
                self._buffer[:rest] = self._buffer[self._at : self._end]
                self._at, self._end = 0, rest
            if self._end > _HEAD_BYTES:
                raise ValueError("a line without an end")
            self._end += self._received(self._view[self._end :])
        found = bytes(self._view[self._at : place])
        self._at = place + len(end)
        return found

    def _skip(self, size: int) -> int:
        """Receive `size` bytes of which some may be here already."""
        here = min(size, self._end - self._at)
        self._at += here
        left = size - here
        while left:
            self._at = self._end = 0
            left -= self._received(self._view[: min(left, _BUFFER_BYTES)])
        return size

    def _received(self, into: memoryview) -> int:
        size = self._socket.recv_into(into)
        if size == 0:
            raise ConnectionResetError
        return size
