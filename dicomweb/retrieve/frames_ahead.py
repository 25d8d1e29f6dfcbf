"""Answers of frames that lie in the page cache; of whoever takes a series frame by frame, the next is read ahead.

The next request comes when the frame before it has arrived: until then the server would wait. What was read ahead is
memory and no answer: it is sent when its own request was admitted and recorded, as any other. One frame a process.
DICOM PS3.18 §10.4.1.1.6; ADR 0043
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from dicomweb.multipart import closing, new_boundary, part_head
from dicomweb.retrieve import answers
from dicomweb.retrieve.cross_origin import MARKS
from dicomweb.retrieve.frames import chosen, frame_head, frame_spans_in, multipart_media
from dicomweb.retrieve.pieces import is_small, read_spans_now
from dicomweb.retrieve.pixel_layout import PixelLayout
from dicomweb.retrieve.stored_files import StoredFiles
from dicomweb.retrieve.transfer_syntaxes import EXPLICIT_LITTLE
from dicomweb.study_index import IndexedInstance
from foramen.kernel.errors import InteropError

_TOLD = [(name.lower().encode(), value.encode()) for name, value in answers.CACHE.items()] + MARKS
_HELD_HERE_ALONE = 2
"""References to a body: its answer, and the question how many there are."""


class AskedFrame(NamedTuple):
    """A request for a frame.

    Parameters
    ----------
    number : from 1, of the instance
    accept : header that chooses its form
    client : the connection it came by; who shares a series out among several leaves no pause, and is not read ahead of
    """

    one: IndexedInstance
    number: int
    accept: str
    client: tuple[str, int] | None


class FrameAnswer(NamedTuple):
    """Headers and body of a 200, and the file that the body was read from."""

    headers: list[tuple[bytes, bytes]]
    body: bytearray
    path: str


class FramesAhead:
    """Makes answers; whether one may be sent is decided by who asks for it.

    Parameters
    ----------
    base : of the API, for Content-Location
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._expected: AskedFrame | None = None
        self._ahead: tuple[AskedFrame, FrameAnswer] | None = None
        self._spare: bytearray | None = None

    def answer(self, asked: AskedFrame, files: StoredFiles) -> FrameAnswer | None:
        """Return the answer; None: a file has to be found, a disk, a codec or a refusal waited for."""
        known = files.ready(asked.one.orthanc_id)
        if known is None:
            return None
        if self._ahead is not None and self._ahead[0] == asked and self._ahead[1].path == known[0]:
            (_, found), self._ahead = self._ahead, None
            return found
        return self._made(asked, *known)

    def sent(self, asked: AskedFrame, answer: FrameAnswer, following: AskedFrame | None, files: StoredFiles) -> None:
        """Take note of what was sent, and read what follows when this followed what was sent before."""
        # Pages that are there already cost half as much to fill. A server that has not sent them yet keeps its own.
        if sys.getrefcount(answer.body) == _HELD_HERE_ALONE:
            self._spare = answer.body
        in_turn, self._expected = asked == self._expected, following
        if not in_turn or following is None or (self._ahead is not None and self._ahead[0] == following):
            return
        if self._ahead is not None and self._spare is None:
            self._spare = self._ahead[1].body
        known = files.ready(following.one.orthanc_id)
        made = None if known is None else self._made(following, *known)
        self._ahead = None if made is None else (following, made)

    def _made(self, asked: AskedFrame, path: str, layout: PixelLayout) -> FrameAnswer | None:
        one, number = asked.one, asked.number
        try:
            offer = chosen(asked.accept, one.transfer_syntax_uid, True)
        except InteropError:
            return None
        syntax = offer.transfer_syntax or EXPLICIT_LITTLE
        spans = frame_spans_in(layout, number, syntax)
        if spans is None:
            return None
        told = answers.etag_of("frames", str(offer), one.orthanc_id, str(number))
        head = tail = b""
        if offer.multipart:
            boundary = new_boundary()
            head, tail = part_head(boundary, frame_head(self._base, one, number, offer)), closing(boundary)
            kind, tag = f"multipart/related; {multipart_media(offer)}; boundary={boundary}", f'W/"{told}"'
        else:
            kind, tag = f"{offer.media_type}; transfer-syntax={syntax}", f'"{told}"'
        length = len(head) + sum(size for _, size in spans) + len(tail)
        if not is_small(length):
            return None
        spare, self._spare = self._spare, None
        body = read_spans_now(path, spans, head, tail, spare)
        if body is None:
            self._spare = spare
            return None
        headers = [(b"content-type", kind.encode()), (b"etag", tag.encode()), (b"content-length", b"%d" % length)]
        return FrameAnswer([*headers, *_TOLD, *([] if offer.multipart else [(b"accept-ranges", b"bytes")])], body, path)
