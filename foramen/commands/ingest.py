"""`foramen ingest PATH…`: images of any kind by C-STORE to the archive; `--watch` keeps at a folder that others fill.

DICOM PS3.4 Annex B (Storage Service Class)
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foramen.kernel.log import configure_log
from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from foramen.ingest.run import Destination, Report


def ingest(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files, folders, ZIP archives, DICOMDIR: DICOM, NIfTI, MHA/MHD, NRRD, PNG, JPEG, WebP, MP4, STL, OBJ."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Host of the archive.")] = "127.0.0.1",
    dicom_port: Annotated[int | None, typer.Option(help="DIMSE port of the archive (FORAMEN_DICOM_PORT).")] = None,
    aet: Annotated[str | None, typer.Option(help="AE title of the archive (FORAMEN_DICOM_AET).")] = None,
    sidecar: Annotated[
        Path | None, typer.Option(help="JSON that describes what is no DICOM; default sidecar.json beside it.")
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(help="Folder to watch: what lies still in it is sent, and moved to done/ or failed/."),
    ] = None,
    settle_s: Annotated[float, typer.Option(min=0.0, help="Seconds an entry must lie still (with --watch).")] = 5.0,
) -> None:
    """Send images to the archive; goes on where it was broken off; exit 1 when any file failed."""
    from foramen.ingest.run import Destination

    settings = get_settings()
    destination = Destination(host, dicom_port or settings.dicom_port, aet or settings.dicom_aet)
    if (watch is None) == (not paths):
        raise typer.BadParameter("give paths, or --watch with a folder")
    if watch is not None:
        _watch(watch, destination, settle_s)
        return
    _send(paths or [], destination, sidecar)


def _send(paths: list[Path], destination: Destination, sidecar: Path | None) -> None:
    from foramen.ingest.run import ingest_paths
    from foramen.ingest.sources import find

    console = Console(stderr=True)
    plan = find(paths)
    if plan.count == 0:
        console.print("Nothing to send: no image file at the given paths")
        raise typer.Exit(1)
    columns = (TextColumn("ingest"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("ingest", total=plan.count)
        home = get_settings().home
        report = ingest_paths(plan, destination, home, sidecar, lambda: progress.advance(bar))
    _show(console, report)
    if report.failed:
        raise typer.Exit(1)


def _show(console: Console, report: Report) -> None:
    console.print(f"stored {report.stored}, acknowledged before {report.skipped}, failed {len(report.failed)}")
    for name, what in report.mended:
        console.print(f"  mended {name}: {'; '.join(what)}", markup=False, highlight=False)
    for name, reason in report.failed:
        console.print(f"  {name}: {reason}", markup=False, highlight=False)


def _watch(folder: Path, destination: Destination, settle_s: float) -> None:
    from foramen.ingest.drop_folder import DropFolder, watch

    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is no folder")
    settings = get_settings()
    configure_log(settings.log_level, "ingest")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    watch(DropFolder(folder, destination, settings.home, settle_s), stopped.is_set)
