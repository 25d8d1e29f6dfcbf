"""`foramen model run`: many studies at once, of a cohort, a list or a folder; behind all live work.

The record's Tasks do it, so results are those of live mode; `--dry-run` only predicts, on processes of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foramen.commands.model_run_source import (
    archive_of,
    files_by_study,
    jobs_of_archive,
    jobs_of_files,
    record_of,
    uids_in,
)
from foramen.kernel.settings import Settings, get_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_services.models.registry import Manifest
    from ai_services.models.versions import ModelVersion
    from ai_services.workflow.batch import Plan
    from ai_services.workflow.prediction_pool import Answer, Job

_REGISTRATION_S = 120.0
_COLUMNS = (TextColumn("model run"), BarColumn(), MofNCompleteColumn(), TextColumn("studies"), TimeRemainingColumn())


def run(
    cohort: Annotated[
        str | None, typer.Option(help="Group/id: studies of its patients that hold the modality.")
    ] = None,
    studies: Annotated[Path | None, typer.Option(help="File with a Study Instance UID a line; - reads stdin.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of DICOM files; they are sent to the archive.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the batch: the same name goes on where an earlier call was killed.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also studies that have their answer.")] = False,
    window: Annotated[int, typer.Option(min=1, max=500, help="Studies asked for at the same time.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only predict; the record is not touched.")] = False,
    out: Annotated[Path | None, typer.Option(help="With --dry-run: folder for the predictions.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="With --dry-run: processes of one thread each.")] = 2,
    version: Annotated[str | None, typer.Option(help="With --dry-run: a registered version, not the current.")] = None,
    pipeline: Annotated[str, typer.Option(help="lumbar_mr, or lumbar_ct for studies with CT and no MR.")] = "lumbar_mr",
) -> None:
    """Analyse many studies behind all live work; exit 1 where some failed or could not be asked for."""
    if [cohort, studies, folder].count(None) != 2:
        raise typer.BadParameter("give one of --cohort, --studies and --folder")
    if dry_run != (out is not None) or (version is not None and not dry_run):
        raise typer.BadParameter("--out and --version go with --dry-run, and --dry-run needs --out")
    modality = _modality_of(pipeline)
    console = Console(stderr=True)
    settings = get_settings()
    files = files_by_study(folder, modality, console) if folder is not None else {}
    uids = sorted(files) if folder is not None else _named(settings, cohort, studies, modality)
    if not uids:
        console.print("No study to analyse")
        raise typer.Exit(1)
    if dry_run and out is not None:
        counts = _predict(settings, uids, files, _Dry(out, processes, pipeline, version), console)
    else:
        from ai_services.workflow.batch import Plan

        plan = Plan(
            name or _name_of(cohort or str((studies or folder or Path()).resolve()), pipeline, again=again),
            again,
            window,
            registration_s=_REGISTRATION_S if folder is not None else 0.0,
        )
        counts = asyncio.run(_ask(settings, uids, files, plan, console))
    for (status, reason), count in sorted(counts.items()):
        typer.echo(f"{count} {status}{f': {reason}' if reason else ''}")
    raise typer.Exit(1 if any(status in ("failed", "refused") for status, _ in counts) else 0)


def _modality_of(pipeline: str) -> str:
    from ai_services.workflow.pipelines import PIPELINES, kind_of

    if pipeline not in PIPELINES:
        raise typer.BadParameter(f"choose one of {', '.join(PIPELINES)}", param_hint="--pipeline")
    return kind_of(pipeline).modality


def _name_of(source: str, pipeline: str, *, again: bool) -> str:
    """The same call has the same name, so that it goes on."""
    key = f"{source}|{again}" if pipeline == "lumbar_mr" else f"{source}|{again}|{pipeline}"
    return f"batch-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _named(settings: Settings, cohort: str | None, studies: Path | None, modality: str) -> list[str]:
    if studies is not None:
        return sorted(set(uids_in(studies)))

    async def ask() -> list[str]:
        from ai_services.workflow.batch import studies_of_group

        async with record_of(settings) as record:
            return await studies_of_group(record, str(cohort), modality)

    return asyncio.run(ask())


async def _ask(
    settings: Settings, uids: list[str], files: Mapping[str, tuple[Path, ...]], plan: Plan, console: Console
) -> Counter[tuple[str, str]]:
    """Let the record's Tasks do it, and follow them."""
    from ai_services.workflow.batch import run_batch

    console.print(
        f"Batch {plan.name}. What was asked for goes on when this command is ended; the same call follows it."
    )
    counts: Counter[tuple[str, str]] = Counter()
    with Progress(*_COLUMNS, console=console) as progress:
        bar = progress.add_task("model run", total=len(uids))
        async with record_of(settings) as record:
            async for outcome in run_batch(record, _sent(settings, uids, files), plan):
                counts[outcome.status, outcome.reason] += 1
                progress.advance(bar)
    return counts


def _sent(settings: Settings, uids: Iterable[str], files: Mapping[str, tuple[Path, ...]]) -> Iterator[str]:
    """Each study, in the archive when it is its turn; sending again what is there changes nothing."""
    from pydicom import dcmread

    access = archive_of(settings) if files else None
    for uid in uids:
        if access is not None:
            access.store(uid, [dcmread(path) for path in files[uid]])
        yield uid


@dataclass(frozen=True, slots=True)
class _Dry:
    """How a dry run is asked for."""

    out: Path
    processes: int
    pipeline: str
    version: str | None


def _predict(
    settings: Settings, uids: list[str], files: Mapping[str, tuple[Path, ...]], dry: _Dry, console: Console
) -> Counter[tuple[str, str]]:
    """Predict only, on processes of this command."""
    from ai_services.models.runtime import DeviceError, Execution, ModelIntegrityError
    from ai_services.workflow.journal import Journal
    from ai_services.workflow.pipelines import kind_of
    from ai_services.workflow.prediction_pool import Pool, predict

    counts: Counter[tuple[str, str]] = Counter()
    try:
        manifest = _package(settings, dry, offline=bool(files))
        journal = Journal(dry.out, manifest.digest)
        left = [uid for uid in uids if uid not in journal.done()]
        counts["skipped", "already-answered"] = len(uids) - len(left)
        pool = Pool(dry.processes, Execution(settings.worker_device, 1), manifest)
        with (
            tempfile.TemporaryDirectory(prefix="foramen-run-") as name,
            Progress(*_COLUMNS, console=console) as progress,
        ):
            bar = progress.add_task("model run", total=len(uids), completed=len(uids) - len(left))
            if files:
                jobs: Iterator[Job | Answer] = jobs_of_files(left, files)
            else:
                jobs = jobs_of_archive(archive_of(settings), left, Path(name), kind_of(dry.pipeline))
            for answer in predict(jobs, dry.out, pool):
                journal.add(answer)
                shutil.rmtree(Path(name) / answer.name, ignore_errors=True)
                counts[answer.status, answer.reason] += 1
                progress.advance(bar)
    except (ModelIntegrityError, DeviceError) as refused:
        raise typer.BadParameter(str(refused)) from refused
    return +counts


def _package(settings: Settings, dry: _Dry, *, offline: bool) -> Manifest:
    """The package that speaks: a registered version, else the current release; files need no server for their own."""
    from ai_services.models.registry import load_manifest
    from ai_services.models.stages import Stage, StageError
    from ai_services.models.versions import ModelRegistry
    from foramen.kernel.database_url import database_url

    if dry.version is None and offline:
        return load_manifest(dry.pipeline)
    registry = ModelRegistry(database_url(settings), settings.home)
    try:
        if dry.version is not None:
            found: ModelVersion | None = registry.version(dry.pipeline, dry.version)
        else:
            found = registry.current(dry.pipeline)
    except StageError as refused:
        raise typer.BadParameter(str(refused), param_hint="--version") from refused
    if found is None:
        return load_manifest(dry.pipeline)
    if found.stage is Stage.RECALLED:
        raise typer.BadParameter("this version was recalled and speaks never again", param_hint="--version")
    return registry.open(found)
