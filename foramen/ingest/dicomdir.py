"""Which files a DICOMDIR lists, and which of them are missing.

DICOM PS3.10 §8 (DICOM File Service), PS3.3 Annex F (Basic Directory IOD).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import MediaStorageDirectoryStorage

from foramen.kernel.errors import InvalidRequestError

_MOST_RECORDS = 1_000_000


@dataclass(slots=True)
class Listed:
    """Files that a DICOMDIR lists: those found, and the names of those that are not where it says."""

    files: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def is_dicomdir(path: Path) -> bool:
    """Whether a file is named as a DICOMDIR is."""
    return path.name.upper() == "DICOMDIR"


def listed_files(path: Path) -> Listed:
    """Read a DICOMDIR.

    Names are compared without regard to case: media written as ISO 9660 are copied in either (PS3.12 Annex F).

    Raises
    ------
    InvalidRequestError
        It is no readable DICOMDIR.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            directory = dcmread(path)
            if directory.file_meta.MediaStorageSOPClassUID != MediaStorageDirectoryStorage:
                raise InvalidRequestError("not a DICOMDIR")
            records = list(directory.get("DirectoryRecordSequence") or ())[:_MOST_RECORDS]
            names = [record.get("ReferencedFileID") for record in records]
        except InvalidRequestError:
            raise
        except Exception as exc:
            raise InvalidRequestError("not a readable DICOMDIR") from exc
    found = Listed()
    for name in names:
        if name is None:
            continue
        parts = [name] if isinstance(name, str) else [str(part) for part in name]
        file = _below(path.parent, parts)
        if file is None:
            found.missing.append("/".join(parts))
        else:
            found.files.append(file)
    return found


def _below(folder: Path, parts: list[str]) -> Path | None:
    """Return the file that the components name below a folder; None: there is none, or they lead elsewhere."""
    place = folder
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part:
            return None
        exact = place / part
        if not exact.exists():
            wanted = part.casefold()
            names = sorted(place.iterdir()) if place.is_dir() else []
            exact = next((item for item in names if item.name.casefold().partition(";")[0] == wanted), exact)
        if exact.is_symlink():
            return None
        place = exact
    return place if place.is_file() else None
