"""Where the studies of `foramen model run` come from: a list, a folder of DICOM files, the archive of the server."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from foramen.kernel.settings import Settings

if TYPE_CHECKING:
    from ai_services.workflow.dicom_access import DicomAccess
    from ai_services.workflow.pipelines import PipelineKind
    from ai_services.workflow.prediction_pool import Answer, Job
    from foramen.kernel.fhir_client import FhirClient

_DAY_S = 86_400


def uids_in(path: Path) -> Iterator[str]:
    """Study Instance UIDs of a file, one a line; ``-`` is the standard input."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter("the file cannot be read as text", param_hint="--studies") from exc
    for number, line in enumerate(text.splitlines(), start=1):
        uid = line.strip()
        if uid and not re.fullmatch(r"[0-9]+(\.[0-9]+)+", uid):
            raise typer.BadParameter(f"line {number} is not a Study Instance UID", param_hint="--studies")
        if uid:
            yield uid


def files_by_study(folder: Path, modality: str, console: Console) -> dict[str, tuple[Path, ...]]:
    """Files of a modality by study."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    if not folder.is_dir():
        raise typer.BadParameter("there is no such folder", param_hint="--folder")
    found: dict[str, list[Path]] = {}
    left_out = 0
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        try:
            header = dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            left_out += 1
            continue
        if header.get("Modality") == modality and "StudyInstanceUID" in header:
            found.setdefault(str(header.StudyInstanceUID), []).append(path)
        else:
            left_out += 1
    if left_out:
        console.print(f"{left_out} files are not {modality} images and are left out")
    return {uid: tuple(paths) for uid, paths in found.items()}


def jobs_of_files(uids: Iterable[str], files: Mapping[str, tuple[Path, ...]]) -> Iterator[Job]:
    """Jobs of files that lie here."""
    from ai_services.workflow.prediction_pool import Job

    for uid in uids:
        yield Job(uid, files[uid])


def jobs_of_archive(
    access: DicomAccess, uids: Iterable[str], folder: Path, kind: PipelineKind
) -> Iterator[Job | Answer]:
    """Fetch each study when a process is nearly free; what cannot be fetched has its answer at once."""
    from ai_services.prediction import PipelineError
    from ai_services.workflow.prediction_pool import Answer, Job
    from foramen.kernel.errors import InteropError

    for uid in uids:
        job = Job(uid, ())
        try:
            modalities = access.series_of_study(uid)
            own = [series for series, modality in modalities if modality == kind.modality]
            headers = [access.series_metadata(uid, series) for series in own]
            datasets = access.retrieve_series(uid, kind.select(headers).require())
        except PipelineError as no:
            yield Answer(uid, "declined", job.name, no.reason_code, no.text_en, no.text_zh)
            continue
        except InteropError as fault:
            yield Answer(uid, "failed", job.name, fault.issue_code, fault.message, "影像服务未能提供该检查")
            continue
        (folder / job.name).mkdir(mode=0o700, exist_ok=True)
        paths = []
        for number, dataset in enumerate(datasets):
            paths.append(folder / job.name / f"{number:05d}.dcm")
            dataset.save_as(paths[-1], enforce_file_format=True)
        yield Job(uid, tuple(paths))


def record_of(settings: Settings) -> FhirClient:
    """The running server's record, as an operator."""
    import httpx

    from foramen.kernel.fhir_client import FhirClient

    http = httpx.AsyncClient(headers={"Authorization": _authorization(settings)}, timeout=60, trust_env=False)
    return FhirClient(f"{settings.internal_origin}/fhir", http)


def archive_of(settings: Settings) -> DicomAccess:
    """The running server's images, as an operator."""
    from ai_services.workflow.dicom_access import DicomAccess

    authorization = _authorization(settings)
    return DicomAccess(f"{settings.internal_origin}/dicom-web", lambda: authorization)


def _authorization(settings: Settings) -> str:
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.database_url import database_url

    scopes = "system/Task.rus system/Group.r system/Patient.rs system/ImagingStudy.crus"
    return f"Bearer {operator_token(settings, database_url(settings), scopes, expires_in_s=_DAY_S)}"
