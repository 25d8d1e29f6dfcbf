"""What lies at the paths given: DICOM files, ZIP archives of them, folders of pictures with a sidecar."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmwrite

from dicomweb.instance_check import RejectedInstanceError, parse_instance
from foramen.ingest.pictures import SUFFIXES, read_slice
from foramen.ingest.sidecar import Sidecar, read_sidecar
from foramen.ingest.wrap import Slice, wrap_slices
from foramen.kernel.errors import InteropError

SIDECAR_NAME = "sidecar.json"
_LARGEST_MEMBER_BYTES = 2 * 1024**3
_COMPANIONS = frozenset(("dicomdir", "license", "licence", "readme", "thumbs.db", SIDECAR_NAME))
_COMPANION_SUFFIXES = frozenset((".txt", ".md", ".json", ".csv", ".pdf"))


@dataclass(frozen=True, slots=True)
class Item:
    """One instance to send (`dataset` with its `content`), or a file that cannot be sent (`fault`)."""

    name: str
    content: bytes = b""
    dataset: Dataset | None = None
    fault: str = ""


@dataclass(slots=True)
class Plan:
    """Files found, before anything is read."""

    files: list[Path] = field(default_factory=list)
    pictures: dict[Path, list[Path]] = field(default_factory=dict)
    missing: list[Path] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self.files) + sum(map(len, self.pictures.values())) + len(self.missing)


def find(paths: list[Path]) -> Plan:
    """List the files below the paths; papers that lie beside images (licence, read-me, DICOMDIR) are no images."""
    plan = Plan()
    for path in paths:
        if not path.exists():
            plan.missing.append(path)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not file.is_file() or (path.is_dir() and _is_companion(file.name)):
                continue
            if file.suffix.lower() in SUFFIXES:
                plan.pictures.setdefault(file.parent, []).append(file)
            else:
                plan.files.append(file)
    return plan


def _is_companion(name: str) -> bool:
    path = Path(name.lower())
    return (
        path.name.startswith(".")
        or path.stem in _COMPANIONS
        or path.name in _COMPANIONS
        or path.suffix in _COMPANION_SUFFIXES
    )


def read(plan: Plan, sidecar: Path | None) -> Iterator[Item]:
    """Read and check one file after the other; a file that is faulty gives an item that says why."""
    yield from (Item(path.name, fault="there is no such file or folder") for path in plan.missing)
    for file in plan.files:
        if zipfile.is_zipfile(file):
            yield from _zip_items(file)
        else:
            yield _item(file.name, file.read_bytes())
    for folder, files in plan.pictures.items():
        yield from _picture_items(files, sidecar or folder / SIDECAR_NAME)


def _item(name: str, content: bytes) -> Item:
    try:
        return Item(name, content, parse_instance(BytesIO(content)))
    except RejectedInstanceError as error:
        not_dicom = content[128:132] != b"DICM"
        return Item(name, fault="not a DICOM file" if not_dicom else _lower_first(error.text))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _zip_items(file: Path) -> Iterator[Item]:
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = f"{file.name}:{member.filename}"
                if member.is_dir() or _is_companion(Path(member.filename).name):
                    continue
                if member.file_size > _LARGEST_MEMBER_BYTES:
                    yield Item(name, fault="larger than 2 GiB")
                    continue
                yield _item(name, archive.read(member))
    except (zipfile.BadZipFile, RuntimeError, OSError, NotImplementedError) as exc:
        yield Item(file.name, fault=f"the ZIP archive cannot be read ({type(exc).__name__})")


def _picture_items(files: list[Path], sidecar_file: Path) -> Iterator[Item]:
    if not sidecar_file.exists():
        yield from (
            Item(file.name, fault="a picture needs a sidecar (--sidecar, or sidecar.json beside it)") for file in files
        )
        return
    slices: list[Slice] = []
    try:
        sidecar: Sidecar = read_sidecar(sidecar_file)
    except InteropError as error:
        yield Item(sidecar_file.name, fault=error.message)
        return
    for file in files:
        try:
            slices.append(read_slice(file, sidecar))
        except InteropError as error:
            yield Item(file.name, fault=_lower_first(error.message))
    if not slices:
        return
    try:
        datasets = wrap_slices(slices, sidecar)
    except InteropError as error:
        yield Item(files[0].parent.name, fault=_lower_first(error.message))
        return
    for dataset in datasets:
        target = BytesIO()
        dcmwrite(target, dataset, enforce_file_format=True)
        yield Item(f"slice {dataset.InstanceNumber}", target.getvalue(), dataset)
