"""A folder of DICOM files de-identified into another: each is verified before it is given out, and the run is reported.

Names of the results are pseudonyms alone. A file appears whole or not at all; the table has its links before that.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.errors import InvalidDicomError

from dicomweb.deidentification.identity import Identity, Subject
from dicomweb.deidentification.instance import Deidentified, HeldBackError, deidentify
from dicomweb.deidentification.profile import Profile
from dicomweb.deidentification.quiet_reading import quiet_reading
from dicomweb.deidentification.reidentification import Link
from dicomweb.deidentification.verification import Survivor, verify
from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms
from foramen.kernel.errors import InteropError

SubjectOf = Callable[[Dataset], Subject]
Keep = Callable[[list[Link]], None]
_PREAMBLE = 132


@dataclass(frozen=True, slots=True)
class Project:
    """What a run works with."""

    name: str
    profile: Profile
    pseudonyms: ProjectPseudonyms = field(repr=False)
    blacken: bool = False


@dataclass
class SeriesReport:
    """One series of the result."""

    modality: str = ""
    description: str = ""
    written: int = 0
    held_back: Counter[str] = field(default_factory=Counter)
    frames_searched: int = 0
    text_regions: int = 0
    blackened: int = 0


@dataclass
class RunReport:
    """What a run did; nothing in it identifies."""

    read: int = 0
    written: int = 0
    no_dicom: int = 0
    held_back: Counter[str] = field(default_factory=Counter)
    series: dict[tuple[str, str, str], SeriesReport] = field(default_factory=dict)
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    survivors: Counter[Survivor] = field(default_factory=Counter)
    bytes_written: int = 0


def files_under(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file, those of folders in a fixed order."""
    for path in paths:
        if path.is_dir():
            yield from (item for item in sorted(path.rglob("*")) if item.is_file())
        else:
            yield path


def deidentify_all(
    contents: Iterable[bytes],
    folder: Path,
    project: Project,
    subject_of: SubjectOf,
    keep: Keep,
    report: RunReport | None = None,
) -> RunReport:
    """De-identify instances into a folder.

    Parameters
    ----------
    contents : files of DICOM instances; what is none is counted and left out
    subject_of : tells whom a data set is about
    keep : makes links durable; called before the file they belong to appears
    report : is gone on with; a new one without it
    """
    report = report or RunReport()
    with quiet_reading():
        for content in contents:
            report.read += 1
            try:
                original = _parsed(content)
            except Exception:  # noqa: BLE001  pydicom raises many kinds for broken files
                report.held_back["unreadable"] += 1
                continue
            if original is None:
                report.no_dicom += 1
            else:
                _safely(original, folder, project, subject_of, keep, report)
    return report


def _parsed(content: bytes) -> Dataset | None:
    """Read an instance; None: it is none."""
    forced = content[128:_PREAMBLE] != b"DICM" and _looks_like_dicom(content)
    try:
        found = dcmread(BytesIO(content), force=forced)
        named = [found.get(name) for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")]
    except InvalidDicomError:
        return None
    return found if any(named) else None


def _looks_like_dicom(content: bytes) -> bool:
    """Whether a file without preamble begins as a data set of group 8 does (old exports)."""
    return content[:2] in (b"\x08\x00", b"\x02\x00") and len(content) > _PREAMBLE


def _safely(
    original: Dataset, folder: Path, project: Project, subject_of: SubjectOf, keep: Keep, report: RunReport
) -> None:
    """Hold back what breaks in any other way: one broken file does not end a run, and its fault may quote a value."""
    try:
        _one(original, folder, project, subject_of, keep, report)
    except (InteropError, OSError):
        raise  # the database or the disk: nothing to do with the file
    except Exception:  # noqa: BLE001  pydicom raises many kinds for broken values
        report.held_back["unreadable"] += 1


def _one(
    original: Dataset, folder: Path, project: Project, subject_of: SubjectOf, keep: Keep, report: RunReport
) -> None:
    identity = Identity(project.pseudonyms, subject_of(original))
    study, series, instance = (
        project.pseudonyms.uid(str(original.get(name) or "none"))
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    )
    row = report.series.setdefault((identity.pseudonym, study, series), SeriesReport())
    try:
        done = deidentify(original, project.profile, identity, blacken=project.blacken)
        content = _written(done)
        _check(original, content, project, identity, report)
    except HeldBackError as held:
        row.held_back[held.reason] += 1
        report.held_back[held.reason] += 1
        return
    keep(_links(original, done, identity))
    target = folder / identity.pseudonym / study / series / f"{instance}.dcm"
    write_whole(target, content)
    report.written += 1
    report.bytes_written += len(content)
    report.actions += done.log
    row.written += 1
    row.modality = str(done.dataset.get("Modality") or "")
    row.description = str(done.dataset.get("SeriesDescription") or "")
    if done.pixels is not None:
        row.frames_searched += done.pixels.frames
        row.text_regions += done.pixels.regions
        row.blackened += done.pixels.blackened


def _written(done: Deidentified) -> bytes:
    target = BytesIO()
    try:
        dcmwrite(target, done.dataset, enforce_file_format=True)
    except Exception as exc:
        # pydicom raises many kinds for values that their representation cannot hold.
        raise HeldBackError("not-writable") from exc
    return target.getvalue()


def _check(original: Dataset, content: bytes, project: Project, identity: Identity, report: RunReport) -> None:
    options = project.profile.options
    days = identity.shift_days if options.modified_dates else None
    found = verify(original, content, shift_days=days, device_identity=options.device_identity, uids_kept=options.uids)
    if found:
        report.survivors.update(found)
        raise HeldBackError("verification")


def _links(original: Dataset, done: Deidentified, identity: Identity) -> list[Link]:
    patient = {name: str(original.get(name) or "") for name in ("PatientID", "IssuerOfPatientID")}
    if identity.subject.kind == "Patient":
        patient["Patient"] = identity.subject.value
    links = [Link("patient", identity.pseudonym, patient)]
    for kind, name in (("study", "StudyInstanceUID"), ("series", "SeriesInstanceUID"), ("instance", "SOPInstanceUID")):
        links.append(Link(kind, str(done.dataset[name].value), {name: str(original[name].value)}))
    return links


def write_whole(target: Path, content: bytes) -> None:
    """Write a file that appears whole: beside its place, synced, then renamed."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    with staged.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(target)
