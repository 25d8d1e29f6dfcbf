"""What lies at the paths given: files of any kind we take, folders, ZIP archives, and what a DICOMDIR lists."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foramen.ingest.convert import SIDECAR_NAME, Item, file_items, picture_items
from foramen.ingest.dicomdir import is_dicomdir, listed_files
from foramen.ingest.pictures import SUFFIXES
from foramen.ingest.sidecar import Description
from foramen.ingest.volume_file import PIXEL_FILES
from foramen.ingest.zip_archive import Limits, unpack
from foramen.kernel.errors import InteropError

__all__ = ["SIDECAR_NAME", "Item", "Plan", "find", "read"]
_COMPANIONS = frozenset(("license", "licence", "readme", "thumbs.db", SIDECAR_NAME))
_COMPANION_SUFFIXES = frozenset((".txt", ".md", ".json", ".csv", ".pdf", ".mtl"))
Naming = Callable[[Path], str]


@dataclass(slots=True)
class Plan:
    """Files found, before anything is read; `faults` are names of what is not there or not to be read, with reasons."""

    files: list[Path] = field(default_factory=list)
    pictures: dict[Path, list[Path]] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self.files) + sum(map(len, self.pictures.values())) + len(self.faults)


def find(paths: list[Path], *, follow_links: bool = True) -> Plan:
    """List the files below the paths; papers that lie beside images (licence, read-me) are no images.

    Parameters
    ----------
    follow_links : whether links inside folders are read; without, each is a fault (for folders that others fill)
    """
    plan = Plan()
    seen: set[Path] = set()

    def take(file: Path) -> None:
        if file in seen:
            return
        seen.add(file)
        if file.suffix.lower() in SUFFIXES:
            plan.pictures.setdefault(file.parent, []).append(file)
        else:
            plan.files.append(file)

    for path in paths:
        if not path.exists():
            plan.faults.append((path.name, "there is no such file or folder"))
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not follow_links and file.is_symlink():
                plan.faults.append((file.name, "it is a link"))
            elif not file.is_file() or (path.is_dir() and _is_companion(file)):
                continue
            elif is_dicomdir(file):
                _take_listed(file, plan, take)
            else:
                take(file)
    return plan


def _take_listed(file: Path, plan: Plan, take: Callable[[Path], None]) -> None:
    try:
        listed = listed_files(file)
    except InteropError as error:
        plan.faults.append((file.name, error.message))
        return
    for found in listed.files:
        take(found)
    plan.faults += [(name, "the DICOMDIR lists it, and it is not there") for name in listed.missing]


def _is_companion(file: Path) -> bool:
    name = file.name.lower()
    if name.endswith(PIXEL_FILES):  # pixels of a header beside them
        return any(file.parent.glob("*.[mM][hH][dD]")) or any(file.parent.glob("*.[nN][hH][dD][rR]"))
    stem, suffix = Path(name).stem, Path(name).suffix
    return name.startswith(".") or stem in _COMPANIONS or name in _COMPANIONS or suffix in _COMPANION_SUFFIXES


def read(
    plan: Plan, sidecar: Path | None, description: Description | None = None, *, limits: Limits | None = None
) -> Iterator[Item]:
    """Read and check one file after the other; a file that is faulty gives an item that says why.

    Parameters
    ----------
    sidecar : describes everything that is no DICOM; without it, the sidecar beside each file
    description : describes what has no sidecar
    """
    yield from _read(plan, sidecar, description, lambda file: file.name, limits or Limits(), inside=False)


def _read(
    plan: Plan,
    sidecar: Path | None,
    description: Description | None,
    naming: Naming,
    limits: Limits,
    *,
    inside: bool,
) -> Iterator[Item]:
    yield from (Item(name, fault=reason) for name, reason in plan.faults)
    for file in plan.files:
        name = naming(file)
        if not _is_zip(file):
            yield from file_items(file, name, sidecar, description)
        elif inside:
            yield Item(name, fault="it is an archive in an archive: send it by itself")
        else:
            yield from _zip_items(file, sidecar, description, limits)
    for files in plan.pictures.values():
        yield from picture_items(files, naming, sidecar, description)


def _is_zip(file: Path) -> bool:
    """Whether a file is a ZIP archive from its first byte; a DICOM file with one behind it is a DICOM file."""
    try:
        with file.open("rb") as opened:
            return opened.read(4) in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08") and zipfile.is_zipfile(file)
    except OSError:
        return False


def _zip_items(file: Path, sidecar: Path | None, description: Description | None, limits: Limits) -> Iterator[Item]:
    with tempfile.TemporaryDirectory(prefix="foramen-ingest-") as folder:
        target = Path(folder).resolve()
        try:
            yield from (Item(name, fault=reason) for name, reason in unpack(file, target, limits))
        except OSError as exc:
            yield Item(file.name, fault=f"the ZIP archive cannot be unpacked ({exc.strerror})")
            return

        def naming(member: Path) -> str:
            return f"{file.name}:{member.relative_to(target).as_posix()}"

        yield from _read(find([target], follow_links=False), sidecar, description, naming, limits, inside=True)
