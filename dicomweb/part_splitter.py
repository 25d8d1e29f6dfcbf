"""Divide a multipart body that comes in pieces into its parts (RFC 2046 §5.1.1). Pure; no part is ever held as a whole.

The delimiter is looked for with one search over each piece. A parser that looks at every carriage return, as those for
forms do, spends more time on the pixels of one image than the archive needs to store it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_MOST_PADDING = 256
_HEADER = re.compile(rb"([!#-'*+\-.0-9A-Z^-z|~]+):[ \t]*([^\0\r\n]*)")


class MalformedPartsError(ValueError):
    """The body is not multipart."""


class LongHeadersError(ValueError):
    """The headers of a part are longer than allowed."""


class PartSplitter:
    """A machine that is fed with pieces of a body.

    Parameters
    ----------
    boundary : as the Content-Type names it
    begin : called with the headers of each part, names in lower case
    data : called with stretches of the current part's content, views of bytes that stay as they are
    most_header_bytes : longest header block of a part
    """

    def __init__(
        self,
        boundary: bytes,
        begin: Callable[[dict[str, str]], None],
        data: Callable[[memoryview], None],
        most_header_bytes: int = 16 * 1024,
    ) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._begin, self._data, self._most_header_bytes = begin, data, most_header_bytes
        # The line end before the first delimiter may be missing: it belongs to the head of the message.
        self._kept = b"\r\n"
        self._step: Callable[[bytes, int], int] | None = self._preamble

    @property
    def ended(self) -> bool:
        """Whether the closing delimiter was seen; what follows it is ignored."""
        return self._step is None

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises
        ------
        MalformedPartsError
            Something else than a part follows a delimiter, or headers are none.
        LongHeadersError
            A header block is too long.
        """
        if self._step is None:
            return
        buffer, place = self._joined(piece), 0
        while self._step is not None:
            step, before = self._step, place
            place = step(buffer, place)
            if place == before and self._step == step:
                break  # it waits for more
        self._kept = buffer[place:]

    def _joined(self, piece: bytes) -> bytes:
        """What was kept and the piece; inside of content without copying the piece."""
        if self._step == self._content and len(piece) >= len(self._delimiter):
            seam = self._kept + piece[: len(self._delimiter) - 1]
            if self._delimiter not in seam:
                if self._kept:
                    self._data(memoryview(self._kept))
                return piece
        return self._kept + piece

    def _preamble(self, buffer: bytes, place: int) -> int:
        return self._up_to_delimiter(buffer, place)[0]

    def _content(self, buffer: bytes, place: int) -> int:
        after, end = self._up_to_delimiter(buffer, place)
        if end > place:
            self._data(memoryview(buffer)[place:end])
        return after

    def _up_to_delimiter(self, buffer: bytes, place: int) -> tuple[int, int]:
        """Where to go on, and where what came before the delimiter ends."""
        found = buffer.find(self._delimiter, place)
        if found >= 0:
            self._step = self._after_delimiter
            return found + len(self._delimiter), found
        # Its last bytes may be the beginning of a delimiter.
        end = max(place, len(buffer) - len(self._delimiter) + 1)
        return end, end

    def _after_delimiter(self, buffer: bytes, place: int) -> int:
        if buffer.startswith(b"--", place):
            self._step = None
            return len(buffer)
        end = buffer.find(b"\r\n", place, place + _MOST_PADDING)
        padding = buffer[place:end] if end >= 0 else buffer[place:].rstrip(b"\r")
        if padding.strip(b" \t") not in ((b"",) if end >= 0 else (b"", b"-")) or len(padding) >= _MOST_PADDING:
            raise MalformedPartsError("A delimiter is followed by something else")
        if end < 0:
            return place
        self._step = self._headers
        return end  # at the line end, so that an empty header block looks like any other

    def _headers(self, buffer: bytes, place: int) -> int:
        end = buffer.find(b"\r\n\r\n", place)
        if (len(buffer) if end < 0 else end) - place > self._most_header_bytes:
            raise LongHeadersError
        if end < 0:
            return place
        headers: dict[str, str] = {}
        for line in buffer[place:end].split(b"\r\n")[1:]:
            match = _HEADER.fullmatch(line)
            if match is None:
                raise MalformedPartsError("A part has malformed headers")
            headers[match[1].decode("ascii").lower()] = match[2].rstrip(b" \t").decode("latin-1")
        self._begin(headers)
        self._step = self._empty_line
        return end + 2

    def _empty_line(self, buffer: bytes, place: int) -> int:
        """The line end between headers and content; a part without content may leave it to its delimiter."""
        if len(buffer) - place < len(self._delimiter) and self._delimiter.startswith(buffer[place:]):
            return place
        self._step = self._content
        return place if buffer.startswith(self._delimiter, place) else place + 2
