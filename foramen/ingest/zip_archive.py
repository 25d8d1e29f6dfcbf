"""Unpack a ZIP archive into a folder of its own, within limits and never outside that folder.

APPNOTE.TXT 6.3.10; CWE-22 (path traversal), CWE-409 (compression bombs).
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_CHUNK_BYTES = 1024 * 1024
_RATIO_FROM_BYTES = 64 * 1024 * 1024
_LARGEST_RATIO = 200
_MOST_MEMBERS = 200_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may grow to: bytes of one member and of all together."""

    member_bytes: int = 4 * 1024**3
    total_bytes: int = 64 * 1024**3


def unpack(file: Path, target: Path, limits: Limits | None = None) -> Iterator[tuple[str, str]]:
    """Unpack the members of an archive.

    Parameters
    ----------
    target : an empty folder

    Returns
    -------
    Name and reason of each member that was refused; all others lie in `target` when the iterator has ended.
    """
    limits = limits or Limits()
    left = limits.total_bytes
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS:
                yield file.name, f"the ZIP archive has more than {_MOST_MEMBERS} members"
                return
            for member in members:
                if member.is_dir():
                    continue
                name = f"{file.name}:{member.filename}"
                fault = _fault(member, limits)
                if fault:
                    yield name, fault
                    continue
                if member.file_size > left:
                    yield name, f"the ZIP archive grows to more than {limits.total_bytes} bytes"
                    return
                try:
                    left -= _write(archive, member, target / _place(member.filename))
                except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as exc:
                    yield name, f"this member of the ZIP archive cannot be read ({type(exc).__name__})"
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as exc:
        yield file.name, f"the ZIP archive cannot be read ({type(exc).__name__})"


def _place(name: str) -> str:
    return str(PurePosixPath(name))


def _fault(member: zipfile.ZipInfo, limits: Limits) -> str:
    """Why a member is not unpacked; empty: it is."""
    name = member.filename
    parts = PurePosixPath(name).parts
    outside = name.startswith("/") or ".." in parts or "\\" in name or "\0" in name
    if outside or re.match(r"[A-Za-z]:", name) or not parts:
        return "its name leads out of the archive"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "it is a link or a device, not a file"
    if member.flag_bits & 1:
        return "it is encrypted"
    if member.file_size > limits.member_bytes:
        return f"it is larger than {limits.member_bytes} bytes"
    if member.file_size > _RATIO_FROM_BYTES and member.file_size > _LARGEST_RATIO * max(member.compress_size, 1):
        return f"it grows more than {_LARGEST_RATIO} times when unpacked"
    return ""


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> int:
    """Write one member; zipfile itself stops at the size that the directory announces, and checks the CRC."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = 0
    try:
        with archive.open(member) as source, place.open("xb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                written += len(chunk)
                target.write(chunk)
    except FileExistsError as exc:
        raise ValueError("twice") from exc
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return written
