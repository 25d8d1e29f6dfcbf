"""`foramen ingest PATH…`: DICOM files, folders, ZIP archives, and pictures with a sidecar, by C-STORE to the archive.

DICOM PS3.4 Annex B (Storage Service Class)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foramen.kernel.settings import get_settings


def ingest(
    paths: Annotated[
        list[Path], typer.Argument(help="Files, folders or ZIP archives: DICOM; PNG, JPEG or WebP slices.")
    ],
    host: Annotated[str, typer.Option(help="Host of the archive.")] = "127.0.0.1",
    dicom_port: Annotated[int | None, typer.Option(help="DIMSE port of the archive (FORAMEN_DICOM_PORT).")] = None,
    aet: Annotated[str | None, typer.Option(help="AE title of the archive (FORAMEN_DICOM_AET).")] = None,
    sidecar: Annotated[
        Path | None, typer.Option(help="JSON that describes the pictures; default sidecar.json beside them.")
    ] = None,
) -> None:
    """Send images to the archive; goes on where it was broken off; exit 1 when any file failed."""
    from foramen.ingest.run import Destination, ingest_paths
    from foramen.ingest.sources import find

    settings = get_settings()
    destination = Destination(host, dicom_port or settings.dicom_port, aet or settings.dicom_aet)
    console = Console(stderr=True)
    plan = find(paths)
    if plan.count == 0:
        console.print("Nothing to send: no image file at the given paths")
        raise typer.Exit(1)
    columns = (TextColumn("ingest"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("ingest", total=plan.count)
        report = ingest_paths(plan, destination, settings.home, sidecar, lambda: progress.advance(bar))
    console.print(f"stored {report.stored}, acknowledged before {report.skipped}, failed {len(report.failed)}")
    for name, reason in report.failed:
        console.print(f"  {name}: {reason}", markup=False, highlight=False)
    if report.failed:
        raise typer.Exit(1)
