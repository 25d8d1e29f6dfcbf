"""Multipart framing: whatever the parts hold and however the body is cut into pieces, the same parts come out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dicomweb.multipart import Spool
from dicomweb.part_splitter import LongHeadersError, MalformedPartsError, PartSplitter

BOUNDARY = b"b-1"
PART = b"Content-Type: application/dicom\r\n\r\n"
# What is most likely to be taken for a delimiter: pieces of one.
CONTENTS = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--b-", b"b-1", b"x", b"\0"]), max_size=12).map(
    b"".join
)


def split(*pieces: bytes, most: int = 1024) -> tuple[list[tuple[dict[str, str], bytes]], bool]:
    found: list[tuple[dict[str, str], bytearray]] = []
    splitter = PartSplitter(
        BOUNDARY,
        lambda headers: found.append((headers, bytearray())),
        lambda view: found[-1][1].extend(view),
        most,
    )
    for piece in pieces:
        splitter.feed(piece)
    return [(headers, bytes(content)) for headers, content in found], splitter.ended


def cut(body: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(ends)]


@given(
    contents=st.lists(CONTENTS.filter(lambda one: b"\r\n--b-1" not in b"\r\n" + one), min_size=1, max_size=4),
    places=st.lists(st.integers(0, 10_000), max_size=30),
    preamble=st.sampled_from([b"", b"\r\n", b"words\r\n"]),
    padding=st.sampled_from([b"", b" ", b"\t "]),
)
@example(contents=[b"", b""], places=list(range(80)), preamble=b"", padding=b"")
def test_the_same_parts_however_it_is_cut(
    contents: list[bytes], places: list[int], preamble: bytes, padding: bytes
) -> None:
    delimiter = b"--b-1" + padding + b"\r\n"
    body = preamble + b"".join(delimiter + PART + one + b"\r\n" for one in contents) + b"--b-1--\r\nepilogue"
    parts, ended = split(*cut(body, places))
    assert ended
    assert [content for _, content in parts] == contents
    assert all(headers == {"content-type": "application/dicom"} for headers, _ in parts)


@given(pieces=st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n--b-1", b"--", b"\r\n", PART]))))
def test_any_bytes_give_parts_or_a_refusal_and_the_same_in_one_piece(pieces: list[bytes]) -> None:
    def outcome(*some: bytes) -> object:
        try:
            return split(*some)
        except (MalformedPartsError, LongHeadersError) as error:
            return type(error)

    assert outcome(*pieces) == outcome(b"".join(pieces))


@pytest.mark.parametrize(
    ("body", "contents"),
    [
        (b"--b-1\r\n\r\nx\r\n--b-1--", [b"x"]),  # no headers
        (b"--b-1\r\nA: b\r\n\r\n--b-1--", [b""]),  # no content, and no line end for it
        (b"--b-1\r\n\r\n--b-1\r\nA: b\r\n\r\n\r\n--b-1--", [b"", b""]),
        (b"--b-1--", []),
    ],
)
def test_empty_parts(body: bytes, contents: list[bytes]) -> None:
    for pieces in ([body], [body[place : place + 1] for place in range(len(body))]):
        parts, ended = split(*pieces)
        assert ended
        assert [content for _, content in parts] == contents


@pytest.mark.parametrize(
    "body",
    [b"--b-1x\r\n\r\n", b"--b-1\r\nno header\r\n\r\n", b"--b-1\r\nA\0: b\r\n\r\n", b"--b-1\r\n: b\r\n\r\n"],
)
def test_what_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPartsError):
        split(body)


@pytest.mark.parametrize("body", [b"", b"--b-1", b"--b-1\r\n\r\nx", b"--b-1\r\n\r\nx\r\n--b-1", b"no delimiter"])
def test_what_is_cut_off_has_not_ended(body: bytes) -> None:
    assert split(body)[1] is False


def test_header_blocks_are_bounded() -> None:
    with pytest.raises(LongHeadersError):
        split(b"--b-1\r\n", *[b"A: " + b"x" * 100 + b"\r\n"] * 20)


@given(
    pieces=st.lists(st.binary(max_size=12), max_size=12),
    memory=st.integers(0, 80),
    offset=st.integers(0, 100),
    size=st.integers(0, 100),
)
def test_a_spool_gives_back_what_was_written_from_memory_and_from_its_file(
    pieces: list[bytes], memory: int, offset: int, size: int
) -> None:
    spool, whole = Spool(memory_bytes=memory), b"".join(pieces)
    for piece in pieces:
        spool.write(piece)
    assert spool.read_at(offset, size) == whole[offset : offset + size]
    assert b"".join(spool.pieces_at(offset, size)) == whole[offset : offset + size]
    assert spool.size == len(whole)
    spool.close()
