"""Comments and application data inside compressed frames: they can say anything, and go. Pure.

JPEG: ITU-T T.81 §B.2.4 (COM, APPn); JPEG-LS: T.87 Annex C (same markers); JPEG 2000: T.800 §A.9.2 (COM).
"""

from __future__ import annotations

from foramen.kernel.errors import InvalidRequestError

_JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_RLE = "1.2.840.10008.1.2.5"
CLEANABLE = _JPEG | _JPEG_2000 | {_RLE}
_SOS, _COM, _ADOBE, _HP = 0xDA, 0xFE, 0xEE, 0xE8
_J2K_START, _J2K_TILE, _J2K_COM = b"\xff\x4f", b"\xff\x90", b"\xff\x64"
_J2K_DATA, _J2K_END = b"\xff\x93", b"\xff\xd9"


class BrokenCodestreamError(InvalidRequestError):
    """A compressed frame cannot be read as what it says it is."""

    def __init__(self) -> None:
        super().__init__("A compressed frame is broken", issue_code="structure")


def without_comments(frame: bytes, transfer_syntax_uid: str) -> bytes:
    """Return one compressed frame without comments and without what follows its end.

    Raises
    ------
    BrokenCodestreamError
        It is not what the transfer syntax says.
    """
    if transfer_syntax_uid in _JPEG:
        found = _jpeg(frame)
    elif transfer_syntax_uid in _JPEG_2000:
        found = _jpeg_2000(frame)
    else:
        return frame
    return found + b"\x00" * (len(found) % 2)


def _jpeg(frame: bytes) -> bytes:
    if frame[:2] != b"\xff\xd8":
        raise BrokenCodestreamError
    kept, at = [b"\xff\xd8"], 2
    while True:
        while frame[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 4 > len(frame) or frame[at] != 0xFF:
            raise BrokenCodestreamError
        marker, size = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == _SOS:
            end = frame.rfind(b"\xff\xd9")
            body = frame[at:] if end < at else frame[at : end + 2]
            return b"".join(kept) + body
        is_said = marker == _COM or 0xE0 <= marker <= 0xEF
        segment = frame[at : at + 2 + size]
        if not is_said or _is_needed(marker, segment):
            kept.append(segment)
        at += 2 + size


def _is_needed(marker: int, segment: bytes) -> bool:
    """Whether a segment says which colour transform was used (and no more): Adobe's of JPEG, HP's of JPEG-LS."""
    return (marker == _ADOBE and len(segment) == 16) or (
        marker == _HP and segment[4:8] == b"mrfx" and len(segment) == 9
    )


def _jpeg_2000(frame: bytes) -> bytes:
    if frame[:2] != _J2K_START:
        raise BrokenCodestreamError  # a JP2 file with boxes is not allowed in DICOM (PS3.5 A.4.4)
    kept, at = [_J2K_START], 2
    while frame[at : at + 2] != _J2K_TILE:
        if at + 4 > len(frame) or frame[at] != 0xFF:
            raise BrokenCodestreamError
        size = int.from_bytes(frame[at + 2 : at + 4], "big")
        if frame[at : at + 2] != _J2K_COM:
            kept.append(frame[at : at + 2 + size])
        at += 2 + size
    return b"".join(kept) + _tile_parts(frame, at)


def _tile_parts(frame: bytes, at: int) -> bytes:
    """Tile-parts to the end of the codestream, comments in their headers blanked (their lengths are said elsewhere)."""
    start, body = at, bytearray(frame)
    while frame[at : at + 2] == _J2K_TILE and at + 12 <= len(frame):
        length = int.from_bytes(frame[at + 6 : at + 10], "big")
        inside = at + 12
        while frame[inside : inside + 2] != _J2K_DATA:
            if inside + 4 > len(frame) or frame[inside] != 0xFF:
                raise BrokenCodestreamError
            size = int.from_bytes(frame[inside + 2 : inside + 4], "big")
            if frame[inside : inside + 2] == _J2K_COM:
                body[inside + 6 : inside + 2 + size] = bytes(max(0, size - 4))
            inside += 2 + size
        if length == 0:  # the last tile-part reaches to the end
            at = max(frame.rfind(_J2K_END), inside)
        elif at + length <= inside:
            raise BrokenCodestreamError
        else:
            at += length
    if frame[at : at + 2] != _J2K_END:
        raise BrokenCodestreamError
    return bytes(body[start:at]) + _J2K_END
