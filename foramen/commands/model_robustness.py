"""`foramen model robustness`: what becomes of outlines and grades when images get worse, and what is refused.

Figures are told with 95 % intervals by patient where there are several; `--page` writes the table of docs/models/.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ai_services.evaluation.robustness import Outcome
    from ai_services.pipelines.lumbar_mr.infer import Networks

THRESHOLDS = (0.22, 0.24, 0.26, 0.28, 0.30, 0.32, 0.34)
PREFACE = """---
audience: whoever releases a model, engineers
type: reference
---
# Robustness of lumbar_mr: figures

Written by `foramen model robustness`; what the columns mean: [robustness](robustness.md).

"""
COVERAGES = (1.0, 0.97, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


def robustness(
    data: Annotated[Path, typer.Option(help="Labelled folder with t2_space/, as evaluate_a_model.md says.")],
    patients: Annotated[
        str | None, typer.Option(help="Only these patients; without it those kept out of training.")
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Take every so many-th slice: thin slices stand for thick ones.")
    ] = 3,
    faults: Annotated[str | None, typer.Option(help="Only these faults, with commas; see the table.")] = None,
    unseen: Annotated[
        Path | None, typer.Option(help="Folder of the grading stage: also tell coverage against risk of the grades.")
    ] = None,
    add: Annotated[Path | None, typer.Option(help="Count the volumes of an earlier run's --json too.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write the tables here (Markdown).")] = None,
) -> None:
    """Run the released pipeline on volumes with faults of known size; exit 1 when nothing could be looked at."""
    from ai_services.evaluation.folder import EvaluationDataError, read_folder
    from ai_services.evaluation.robustness import CLEAN, conditions, entropy_against_dice, outcomes, table_of
    from ai_services.pipelines.lumbar_mr.outline import networks_for
    from ai_services.training.lumbar_mr.splits import HELD_OUT

    names = None if faults is None else {CLEAN, *faults.split(",")}
    chosen = [item for item in conditions() if names is None or item.fault in names]
    numbers = sorted(_numbers(patients) or HELD_OUT)
    networks = networks_for(None)
    try:
        folder = read_folder(data)
        found = _earlier(add, networks, every)
        seen = {(item.patient, item.fault, item.amount) for item in found}
        wanted = [(patient, item) for patient in numbers for item in chosen]
        wanted = [pair for pair in wanted if (pair[0], pair[1].fault, pair[1].amount) not in seen]
        with _bar(len(wanted)) as advance:
            for outcome in outcomes(folder, networks, wanted, every):
                found.append(outcome)
                advance()
                if json_file is not None:  # what was seen is kept when the run is cut off: --add goes on from there
                    _save(json_file, _kept(found, networks, every))
    except EvaluationDataError as refused:
        typer.echo(f"Cannot look: {refused}", err=True)
        raise typer.Exit(2) from refused
    if not any(item.dice for item in found):
        typer.echo("No volume with masks could be looked at", err=True)
        raise typer.Exit(1)
    document: dict[str, Any] = {
        "version": networks.manifest.version,
        "patients": sorted({item.patient for item in found}),
        **_kept(found, networks, every),
        "conditions": table_of(found),
        "entropy_against_dice": entropy_against_dice(found, THRESHOLDS),
    }
    if unseen is not None:
        from ai_services.training.lumbar_mr.grade_coverage import grades_by_coverage

        document["coverage"] = grades_by_coverage(unseen, COVERAGES)
    text = _page(document)
    typer.echo(text)
    if json_file is not None:
        _save(json_file, document)
    if page is not None:
        page.write_text(f"{PREFACE}{text}\n", encoding="utf-8")


def _weights(networks: Networks) -> dict[str, str]:
    return {role: file.identity.sha256[:12] for role, file in networks.manifest.models.items()}


def _earlier(file: Path | None, networks: Networks, every: int) -> list[Outcome]:
    """Volumes of an earlier run; only one of the same weights and slices counts."""
    from ai_services.evaluation.folder import EvaluationDataError
    from ai_services.evaluation.robustness import Outcome

    if file is None:
        return []
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if (document["models"], document["every"]) != (_weights(networks), every):
            raise EvaluationDataError("--add: the earlier run had other weights or slices")
        return [Outcome(**item) for item in document["volumes"]]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise EvaluationDataError("--add: not the --json of an earlier run") from exc


def _kept(found: list[Outcome], networks: Networks, every: int) -> dict[str, Any]:
    """What `--add` reads."""
    return {"models": _weights(networks), "every": every, "volumes": [asdict(item) for item in found]}


def _save(file: Path, document: dict[str, Any]) -> None:
    """Whole or not at all."""
    staged = file.with_suffix(".part")
    staged.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    staged.replace(file)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("robustness"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("robustness", total=total)
        yield lambda: progress.advance(bar)


def _numbers(patients: str | None) -> list[int] | None:
    if patients is None:
        return None
    try:
        return [int(word) for word in patients.split(",")]
    except ValueError as exc:
        raise typer.BadParameter("--patients takes numbers with commas between") from exc


def _page(document: dict[str, Any]) -> str:
    """The tables in Markdown."""
    lines = [
        f"Version {document['version']}, patients {', '.join(map(str, document['patients']))}, "
        f"every {document['every']} slices. Same as clean: against the same volume without the fault.",
        "",
        "| fault | amount | refused | Dice vertebra | disc | canal | count same | Pfirrmann same | within one "
        "| morphology same |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["conditions"]:
        refused = f"{row['refused']} of {row['series']}" + (f" ({', '.join(row['reasons'])})" if row["reasons"] else "")
        figures = ("vertebra_dice", "disc_dice", "canal_dice", "count_same", "pfirrmann_same", "pfirrmann_within_one")
        cells = [_figure(row[name]) for name in (*figures, "morphology_same")]
        lines.append(f"| {row['fault']} | {row['amount']} | {refused} | {' | '.join(cells)} |")
    told = document["entropy_against_dice"]
    lines += [
        "",
        f"Uncertainty against mean Dice over {told['volumes']} outlined volumes: Spearman {told['spearman']}.",
        "",
        "| entropy at most | volumes kept | mean Dice kept | worst kept | mean Dice refused |",
        "|---|---|---|---|---|",
    ]
    for row in told["thresholds"]:
        cells = [_plain(row[name]) for name in ("kept", "dice_kept", "worst_kept", "dice_refused")]
        lines.append(f"| {row['threshold']:.2f} | {' | '.join(cells)} |")
    if "coverage" in document:
        lines += ["", *_coverage(document["coverage"])]
    return "\n".join(lines)


def _coverage(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| Pfirrmann grades told | probability at least | accuracy of those told | within one "
        "| accuracy of those withheld |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [_figure(row["accuracy"]), _figure(row["within_one"]), _figure(row["withheld_accuracy"])]
        lines.append(f"| {row['coverage']:.0%} | {row['threshold']:.2f} | {' | '.join(cells)} |")
    return lines


def _figure(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    interval = figure["interval_95"]
    told = "" if interval is None else f" [{interval[0]:.2f} {interval[1]:.2f}]"
    return f"{figure['value']:.2f}{told}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
