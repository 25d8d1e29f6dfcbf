"""Dataset versions: what a model was trained on, file by file, and which patients it never saw (stage 11).

A version is an immutable manifest beside the data: SHA-256 of every file, patient-level splits, licence, source, and
proof of de-identification. Its digest names it in every run and model card. Splits are drawn by a hash of seed and
patient: a later version with more patients leaves everybody where they were, and who was kept aside stays aside.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST_FOLDER = ".dataset-versions"
SPLITS = ("train", "validation", "test")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PATIENT_IN_FILE_NAME = re.compile(r"(\d+)_")
_CHUNK = 1 << 20


class DatasetError(Exception):
    """The folder or manifest cannot be used; the message names the place, never a patient's data."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file: path in the folder, size, hash, and the patient it belongs to (None: it belongs to all, as a table)."""

    path: str
    bytes: int
    sha256: str
    patient: str | None


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """An immutable version of a dataset.

    Parameters
    ----------
    name : of the dataset
    licence, source : as the data card says them
    deidentification : SHA-256 of the report that proves it; None only for data that was public before it came here
    seed, shares : of the splits
    splits : split → patients
    files : all files, in order of their path
    created, created_by : FHIR instant, account
    """

    name: str
    licence: str
    source: str
    deidentification: str | None
    seed: int
    shares: Mapping[str, float]
    splits: Mapping[str, tuple[str, ...]]
    files: tuple[DataFile, ...]
    created: str
    created_by: str

    @property
    def digest(self) -> str:
        """SHA-256 over the whole manifest in canonical form; names the version."""
        return hashlib.sha256(canonical(self)).hexdigest()

    def patients_of(self, split: str) -> frozenset[str]:
        """Patients of a split; DatasetError where there is no such split."""
        if split not in self.splits:
            raise DatasetError(f"split is one of {', '.join(SPLITS)}")
        return frozenset(self.splits[split])


@dataclass(frozen=True, slots=True)
class Differences:
    """What of a folder is not as the manifest says."""

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def none(self) -> bool:
        """Whether folder and manifest agree; files that came later are no part of the version."""
        return not self.missing and not self.changed


def make_version(
    folder: Path,
    *,
    name: str,
    licence: str,
    source: str,
    created: str,
    created_by: str,
    deidentification: Path | None = None,
    seed: int = 1,
    shares: Mapping[str, float] | None = None,
) -> DatasetVersion:
    """Read a folder and draw its splits.

    Parameters
    ----------
    folder : any files; a file belongs to the patient whose number begins its name (``41_t2.png``), or else to the first
        folder of its path when that is a patient's (``patients/<id>/…``), or else to all
    deidentification : the report of `foramen deidentify` or an equal proof
    shares : split → share of the patients; 0.8, 0.1 and 0.1 without it

    Raises
    ------
    DatasetError
        No files, no licence or source, shares that do not add up, or a name that is none.
    """
    wanted = dict(shares or {"train": 0.8, "validation": 0.1, "test": 0.1})
    if not _NAME.fullmatch(name):
        raise DatasetError("a dataset's name has 1 to 64 of a-z, 0-9, - and _ and begins with a letter or digit")
    if not licence.strip() or not source.strip() or not created_by.strip():
        raise DatasetError("licence, source and who makes the version must be said")
    if set(wanted) != set(SPLITS) or min(wanted.values()) < 0 or abs(sum(wanted.values()) - 1) > 1e-9:
        raise DatasetError("shares of train, validation and test are not negative and add up to 1")
    files = tuple(_read(folder))
    if not files:
        raise DatasetError("the folder holds no files")
    return DatasetVersion(
        name=name,
        licence=licence.strip(),
        source=source.strip(),
        deidentification=None if deidentification is None else _sha256(deidentification),
        seed=seed,
        shares=wanted,
        splits=draw_splits({file.patient for file in files if file.patient is not None}, wanted, seed),
        files=files,
        created=created,
        created_by=created_by.strip(),
    )


def draw_splits(patients: set[str], shares: Mapping[str, float], seed: int) -> dict[str, tuple[str, ...]]:
    """Put each patient into a split by a hash of seed and patient, independent of who else is there."""
    drawn: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(patients):
        digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
        place, upto = int.from_bytes(digest[:8]) / 2**64, 0.0
        for split in SPLITS:
            upto += shares[split]
            if place < upto or split == SPLITS[-1]:
                drawn[split].append(patient)
                break
    return {split: tuple(drawn[split]) for split in SPLITS}


def compare(folder: Path, version: DatasetVersion) -> Differences:
    """Read the folder again, every byte of it, and say what is not as the manifest says."""
    found = {file.path: file for file in _read(folder)}
    known = {file.path: file for file in version.files}
    return Differences(
        missing=tuple(sorted(set(known) - set(found))),
        changed=tuple(sorted(path for path, file in known.items() if path in found and found[path] != file)),
        added=tuple(sorted(set(found) - set(known))),
    )


def save(folder: Path, version: DatasetVersion) -> Path:
    """Write the manifest beside the data; a version that is there already is left as it is."""
    path = folder / MANIFEST_FOLDER / f"{version.name}-{version.digest[:12]}.json"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        staged = path.with_suffix(".part")
        staged.write_bytes(canonical(version))
        staged.rename(path)
    return path


def load(path: Path) -> DatasetVersion:
    """Read a manifest.

    Raises
    ------
    DatasetError
        It cannot be read, or is not the version that its file name says: somebody changed it.
    """
    try:
        document = json.loads(path.read_bytes())
        document["files"] = tuple(DataFile(**file) for file in document["files"])
        document["splits"] = {split: tuple(patients) for split, patients in document["splits"].items()}
        version = DatasetVersion(**document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DatasetError("the manifest cannot be read") from exc
    if path.stem != f"{version.name}-{version.digest[:12]}":
        raise DatasetError("the manifest is not the one that its name says: it was changed")
    return version


def canonical(version: DatasetVersion) -> bytes:
    """The manifest as bytes, always the same for the same version."""
    document: dict[str, Any] = asdict(version)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _read(folder: Path) -> Iterator[DataFile]:
    if not folder.is_dir():
        raise DatasetError("there is no such folder")
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not path.is_file() or inside.parts[0] == MANIFEST_FOLDER:
            continue
        if path.is_symlink():
            raise DatasetError("a link lies in the folder; a version holds files only")
        yield DataFile(inside.as_posix(), path.stat().st_size, _sha256(path), _patient(inside))


def _patient(path: Path) -> str | None:
    if (match := _PATIENT_IN_FILE_NAME.match(path.name)) is not None:
        return match[1]
    return path.parts[1] if len(path.parts) > 2 and path.parts[0] == "patients" else None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as exc:
        raise DatasetError("a file cannot be read") from exc
    return digest.hexdigest()
