"""`foramen quality PATH… --out DIR`: how good series are, and corrected copies of them as new DICOM series.

Contract module 1: 数据清洗, 标准化. Reads DICOM files, or one study of the running server by DICOMweb.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from ai_services.quality.corrections import Step
    from ai_services.workflow.dicom_access import DicomAccess

_DERIVED_SERIES_FROM = 9000
_SCOPES = "system/ImagingStudy.crs"
_TOKEN_S = 86_400
_WITHOUT_PIXELS = ("SEG", "SR", "PR", "KO", "REG")


def quality(
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and corrected series.")],
    paths: Annotated[list[Path] | None, typer.Argument(help="DICOM files or folders.")] = None,
    study: Annotated[str | None, typer.Option(help="Study Instance UID on the running server, not files.")] = None,
    correct: Annotated[str, typer.Option(help="Corrections, with commas: bias, denoise, resample, standardise.")] = "",
    store: Annotated[bool, typer.Option("--store", help="With --study: store the corrected series there.")] = False,
) -> None:
    """Report the image quality of series; exit 1 when nothing could be read."""
    from ai_services.quality.corrections import Step

    try:
        steps = tuple(Step(word.strip()) for word in correct.split(",") if word.strip())
    except ValueError as exc:
        raise typer.BadParameter(f"corrections are {', '.join(Step)}") from exc
    if bool(paths) == bool(study):
        raise typer.BadParameter("give files or folders, or --study")
    if store and (study is None or not steps):
        raise typer.BadParameter("--store needs --study and --correct")
    access = _access() if study is not None else None
    console = Console(stderr=True)
    series = _of_study(access, study) if access is not None and study is not None else _of_files(paths or [], console)
    if not series:
        console.print("No DICOM image to look at")
        raise typer.Exit(1)
    out.mkdir(parents=True, exist_ok=True)
    made = _work(series, steps, out, console)
    if store and access is not None and study is not None and made:
        access.store(study, made)
        console.print(f"{len(made)} corrected images stored")


def _work(series: list[list[Dataset]], steps: tuple[Step, ...], out: Path, console: Console) -> list[Dataset]:
    """Report every series and correct what can be; returns the corrected instances."""
    from ai_services.quality.page import ReportedSeries, page_of, pictures_of
    from ai_services.quality.report import reports_of

    reported, made = [], []
    columns = (TextColumn("quality"), BarColumn(), MofNCompleteColumn(), TextColumn("series"))
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("quality", total=len(series))
        for number, datasets in enumerate(series):
            reported += [ReportedSeries(report, pictures_of(stack)) for report, stack in reports_of(datasets)]
            if steps:
                made += _corrected(datasets, steps, _DERIVED_SERIES_FROM + number, out, console)
            progress.advance(bar)
    told = [item.report.as_json() for item in reported]
    (out / "report.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "report.html").write_text(page_of(reported, datetime.now(UTC)), encoding="utf-8")
    console.print(f"{len(series)} series: {out / 'report.html'}", highlight=False)
    return made


def _corrected(
    datasets: list[Dataset], steps: tuple[Step, ...], number: int, out: Path, console: Console
) -> list[Dataset]:
    from ai_services.imaging.geometry import volume_from_datasets
    from ai_services.imaging.volume import InvalidGeometryError
    from ai_services.quality.corrections import correct
    from ai_services.quality.derived_series import derived_series
    from ai_services.quality.measure import CannotLookError

    try:
        read = volume_from_datasets(datasets)
        corrected = correct(read.volume, steps)
    except (InvalidGeometryError, CannotLookError) as reason:
        console.print(f"  not corrected: {reason.text_en} · {reason.text_zh}", markup=False, highlight=False)
        return []
    by_uid = {str(dataset.SOPInstanceUID): dataset for dataset in datasets}
    sources = [by_uid[uid] for uid in read.sop_instance_uids]
    made = derived_series(sources, corrected, steps, series_number=number)
    folder = out / str(made[0].SeriesInstanceUID)
    folder.mkdir(exist_ok=True)
    for dataset in made:
        dataset.save_as(folder / f"{dataset.InstanceNumber:05d}.dcm", enforce_file_format=True)
    return made


def _of_files(paths: Iterable[Path], console: Console) -> list[list[Dataset]]:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    found: dict[str, list[Dataset]] = defaultdict(list)
    left_out = 0
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not file.is_file():
                continue
            try:
                dataset = dcmread(file)
            except (InvalidDicomError, OSError, ValueError, EOFError):
                left_out += 1
                continue
            if "Rows" in dataset and "SeriesInstanceUID" in dataset:
                found[str(dataset.SeriesInstanceUID)].append(dataset)
    if left_out:
        console.print(f"{left_out} files are not readable DICOM")
    return list(found.values())


def _access() -> DicomAccess:
    from ai_services.workflow.dicom_access import DicomAccess
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    token = operator_token(settings, database_url(settings), _SCOPES, expires_in_s=_TOKEN_S)
    return DicomAccess(f"{settings.internal_origin}/dicom-web", lambda: f"Bearer {token}")


def _of_study(access: DicomAccess, study: str) -> list[list[Dataset]]:
    images = [uid for uid, modality in access.series_of_study(study) if modality not in _WITHOUT_PIXELS]
    return [[one for one in access.retrieve_series(study, uid) if "Rows" in one] for uid in images]
