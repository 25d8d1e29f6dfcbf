"""`foramen model evaluate --name lumbar_ct`: the CT pipeline on a labelled folder; SYNTHETIC ones say so, first."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def evaluate_ct(folder: Path, json_file: Path | None, patients: set[int] | None) -> dict[str, object]:
    """Measure, write the document where it is asked for, and return it.

    Raises
    ------
    typer.Exit
        2 where the folder cannot be read, 1 where no patient could be looked at.
    """
    from ai_services.evaluation.ct_folder import read_ct_folder
    from ai_services.evaluation.ct_report import ct_report, run_over_ct
    from ai_services.evaluation.folder import EvaluationDataError
    from ai_services.models.registry import load_manifest
    from ai_services.pipelines.lumbar_ct.parameters import load_parameters

    console = Console(stderr=True)
    columns = (TextColumn("evaluate"), BarColumn(), MofNCompleteColumn(), TextColumn("patients"), TimeRemainingColumn())
    results = []
    try:
        labelled = read_ct_folder(folder)
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("evaluate", total=len(labelled.slices if patients is None else patients))
            for result in run_over_ct(labelled, load_parameters(), patients):
                results.append(result)
                progress.advance(bar)
    except EvaluationDataError as refused:
        console.print(f"Cannot evaluate: {refused}", markup=False, highlight=False)
        raise typer.Exit(2) from refused
    models = [file.identity for file in load_manifest("lumbar_ct").models.values()]
    document = ct_report(results, models, made=datetime.now(UTC).isoformat(timespec="seconds"))
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for line in document["notice"]:
        typer.echo(line)
    if all(result.declined for result in results):
        console.print("No series could be looked at")
        raise typer.Exit(1)
    return document
