"""`foramen model …`: measure, register, release, roll back and recall the models of this installation.

Contract modules 2 and 4. Figures are told with 95 % intervals and the number of patients they rest on.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from foramen.commands import model_evaluate_ct, model_package, model_reproduce, model_robustness, model_run, model_watch

if TYPE_CHECKING:
    from ai_services.models.versions import ModelRegistry
    from foramen.kernel.settings import Settings

app = typer.Typer(no_args_is_help=True)
app.command("package")(model_package.package)
app.command("watch")(model_watch.watch)
app.command("reference")(model_watch.reference)
app.command("key")(model_package.key)
app.command("robustness")(model_robustness.robustness)
app.command("reproduce")(model_reproduce.reproduce)
app.command("run")(model_run.run)
_PIPELINE = "lumbar_mr"
Package = Annotated[Path, typer.Argument(help="Folder with manifest.yaml, MODEL_CARD.md and the weights.")]
Version = Annotated[str, typer.Argument(help="Version, as its manifest names it.")]
Pipeline = Annotated[str, typer.Option(help="Pipeline that the version belongs to.")]
By = Annotated[str, typer.Option(help="Who decides; it stands in the history.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the history.")]

_TOLD = ("segmentation", "counting", "grading", "grading_where_count_is_right")
_CT_TOLD = ("segmentation", "counting", "measures")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Labelled folder, laid out as docs/how-to/evaluate_a_model.md says.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write the report page (HTML with pictures) here.")] = None,
    patients: Annotated[str | None, typer.Option(help="Only these patients: numbers, with commas.")] = None,
    name: Annotated[str, typer.Option(help="Pipeline: lumbar_mr, or lumbar_ct on a folder with CT.")] = "lumbar_mr",
) -> None:
    """Measure a pipeline as it comes with the software on labelled patients; exit 1 when nothing could be looked at."""
    if name == "lumbar_ct":
        if page is not None:
            raise typer.BadParameter("there is no page for lumbar_ct; --json holds every figure", param_hint="--page")
        _tell(model_evaluate_ct.evaluate_ct(folder, json_file, _numbers(patients)), _CT_TOLD)
        return
    if name != _PIPELINE:
        raise typer.BadParameter("choose one of lumbar_mr, lumbar_ct", param_hint="--name")
    from ai_services.evaluation.figures import DEFAULT_SEED
    from ai_services.evaluation.folder import EvaluationDataError, read_folder
    from ai_services.evaluation.lumbar_mr import released, run_over, series_of
    from ai_services.evaluation.page import page_of
    from ai_services.evaluation.report import report_of
    from ai_services.models.registry import load_manifest

    console = Console(stderr=True)
    chosen = _numbers(patients)
    try:
        labelled = read_folder(folder)
        series = series_of(labelled, chosen)
        columns = (
            TextColumn("evaluate"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("series"),
            TimeRemainingColumn(),
        )
        results = []
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("evaluate", total=len(series))
            for result in run_over(labelled, released(), chosen):
                results.append(result)
                progress.advance(bar)
    except EvaluationDataError as refused:
        console.print(f"Cannot evaluate: {refused}", markup=False, highlight=False)
        raise typer.Exit(2) from refused
    models = [file.identity for file in load_manifest("lumbar_mr").models.values()]
    made = datetime.now(UTC).isoformat(timespec="seconds")
    document = report_of(results, models, made=made, seed=DEFAULT_SEED)
    if json_file is not None:
        json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if page is not None:
        page.write_text(page_of(document, results), encoding="utf-8")
    _tell(document)
    if all(result.declined for result in results):
        console.print("No series could be looked at")
        raise typer.Exit(1)


def _numbers(patients: str | None) -> set[int] | None:
    if patients is None:
        return None
    try:
        return {int(word) for word in patients.split(",")}
    except ValueError as exc:
        raise typer.BadParameter("--patients takes numbers with commas between") from exc


def _tell(document: dict[str, object], parts: tuple[str, ...] = _TOLD) -> None:
    table = Table("figure", "value", "95 % interval", "rows", "patients")
    for part in parts:
        figures = document[part]
        if not isinstance(figures, dict):
            continue
        table.add_section()
        table.add_row(f"[bold]{part.replace('_', ' ')}")
        for name, figure in figures.items():
            interval = figure["interval_95"]
            told = "–" if interval is None else f"{interval[0]:.3f} … {interval[1]:.3f}"
            value = "–" if figure["value"] is None else f"{figure['value']:.3f}"
            table.add_row(name, value, told, str(figure["rows"]), str(figure["patients"]))
    Console().print(table)


@app.command("list")
def list_versions(
    name: Annotated[str | None, typer.Argument(help="Pipeline; all without it.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Every step of the pipeline's versions instead.")] = False,
) -> None:
    """List model versions with their stage; `*` marks the release that speaks where no rule decides."""
    registry = _registry()
    if history:
        table = Table("when", "version", "step", "by", "why", "confirmed")
        for step in registry.history(name or _PIPELINE):
            words = f"{step.from_stage or '–'} → {step.to_stage}"
            at = step.at.isoformat(timespec="seconds")
            table.add_row(at, step.version, words, step.by_whom, step.reason, " ".join(step.confirmed))
    else:
        table = Table("pipeline", "version", "stage", "since", "package", "weights")
        for item in registry.versions(name):
            weights = " ".join(f"{role}:{sha256[:12]}" for role, sha256 in sorted(item.weights.items()))
            version = f"{item.version}{' *' if item.current else ''}"
            since = item.stage_since.isoformat(timespec="seconds")
            table.add_row(item.name, version, item.stage, since, item.digest[:12], weights)
    Console().print(table)


@app.command()
def register(
    folder: Package,
    by: By,
    reason: Reason,
    signed_by: Annotated[
        list[Path] | None, typer.Option(help="Public key (JWK) of another installation that may have signed it.")
    ] = None,
) -> None:
    """Take a package in as a candidate: its weights are checked, signed and copied."""
    from ai_services.models.registry import PackageError

    try:
        trusted = [dict(json.loads(path.read_bytes())) for path in signed_by or ()]
    except (OSError, ValueError, TypeError) as refused:
        raise typer.BadParameter("a public key is a JWK, as foramen model key prints it") from refused
    try:
        taken = _registry().register(folder, by, reason, trusted)
    except PackageError as refused:
        raise _refused(refused) from refused
    typer.echo(f"{taken.name} {taken.version} is a {taken.stage}")


@app.command()
def promote(
    version: Version,
    by: By,
    reason: Reason,
    to: Annotated[str, typer.Option(help="shadow, released, candidate or retired.")] = "released",
    confirm: Annotated[list[str] | None, typer.Option(help="An item of the release checklist; repeat it.")] = None,
    name: Pipeline = "lumbar_mr",
) -> None:
    """Take a version one step on. A release asks for the whole checklist, and the release before it is retired."""
    from ai_services.models.stages import Stage, StageError

    if to == Stage.RECALLED:
        raise typer.BadParameter("a recall also marks what the version wrote: foramen model recall", param_hint="--to")
    try:
        moved = _registry().move(name, version, Stage(to), by, reason, confirm or ())
    except (StageError, ValueError) as refused:
        raise _refused(refused) from refused
    typer.echo(f"{moved.name} {moved.version} is {moved.stage}")


@app.command()
def rollback(by: By, reason: Reason, name: Pipeline = "lumbar_mr") -> None:
    """Let the release before the current one speak again, at once; running studies keep the version they began with."""
    from ai_services.models.stages import StageError

    try:
        current = _registry().roll_back(name, by, reason)
    except StageError as refused:
        raise _refused(refused) from refused
    typer.echo(f"{current.name} {current.version} is {current.stage}")


@app.command()
def route(
    rules: Annotated[
        Path | None, typer.Argument(help="YAML list of rules; shows the rules in force without it.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who decides.")] = "",
    name: Pipeline = "lumbar_mr",
) -> None:
    """Set which version speaks for which studies, by modality, body part, sequence, institution and share (A/B)."""
    import yaml

    from ai_services.models.routing import RoutingError, read_rules
    from ai_services.models.stages import StageError

    registry = _registry()
    if rules is not None:
        try:
            registry.set_rules(name, read_rules(yaml.safe_load(rules.read_text(encoding="utf-8"))), by)
        except (RoutingError, StageError, OSError, UnicodeDecodeError, yaml.YAMLError) as refused:
            raise _refused(refused) from refused
    shown = [rule.as_json() for rule in registry.rules(name)]
    typer.echo(yaml.safe_dump(shown, allow_unicode=True, sort_keys=False).rstrip())


@app.command()
def shadow(version: Version, name: Pipeline = "lumbar_mr") -> None:
    """Tell how a shadow version differs from what was released, over the studies that both saw."""
    from ai_services.models.comparison import summarise

    typer.echo(json.dumps(summarise(_registry().shadow_runs(name, version)), indent=1))


@app.command()
def recall(
    version: Version,
    by: By,
    reason: Reason,
    out: Annotated[
        Path | None, typer.Option(help="Write the list of what it wrote and who saw it here (JSON).")
    ] = None,
    name: Pipeline = "lumbar_mr",
    look: Annotated[bool, typer.Option("--look", help="Only list; change nothing.")] = False,
) -> None:
    """Recall a version: it never speaks again, what it wrote is marked, and who saw it is listed."""
    import asyncio

    from ai_services.models.stages import Stage, StageError
    from foramen.kernel.settings import get_settings

    registry = _registry()
    try:
        found = registry.version(name, version)
        if not look and found.stage is not Stage.RECALLED:
            if found.current:
                registry.roll_back(name, by, reason, recall=True)
            else:
                registry.move(name, version, Stage.RECALLED, by, reason)
    except StageError as refused:
        raise _refused(refused) from refused
    document = asyncio.run(_recalled(get_settings(), list(found.weights.values()), None if look else (by, reason)))
    document = {"name": name, "version": version, "reason": reason, "by": by, **document}
    if out is not None:
        out.write_text((json.dumps(document, indent=1, ensure_ascii=False) + "\n"), encoding="utf-8")
    _tell_recall(document)


async def _recalled(settings: Settings, weights: list[str], decided: tuple[str, str] | None) -> dict[str, Any]:
    """Go through everything that the weights wrote; `decided`, by whom and why, also marks it."""
    import httpx

    from ai_services.models.recall import Marked, Recall, mark, who_saw, written_by
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.database_url import database_url
    from foramen.kernel.fhir_client import FhirClient

    token = operator_token(settings, database_url(settings), "system/*.rus system/Provenance.c", expires_in_s=86_400)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    recall = Recall(*decided, recorded=now) if decided else None
    runs: list[dict[str, Any]] = []
    marked: list[Marked] = []
    headers = {"Authorization": f"Bearer {token}"}
    console = Console(stderr=True)
    async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
        fhir = FhirClient(f"{settings.internal_origin}/fhir", http)
        with console.status("recall") as line:
            async for written in written_by(fhir, weights):
                told = {"recorded": written.recorded, "wrote": written.targets, "from": written.sources}
                runs.append({**told, "dicom": written.objects})
                if recall is not None:
                    await mark(fhir, written, recall, marked.append)
                line.update(f"recall: {len(runs)} runs, {len(marked)} resources")
            seen = await who_saw(fhir, (reference for run in runs for reference in run["wrote"]))
    return {
        "runs": runs,
        "marked": [{"resource": item.reference, "done": item.done, "status": item.status} for item in marked],
        "seen_by": {name: sorted(references) for name, references in sorted(seen.items())},
    }


def _tell_recall(document: dict[str, Any]) -> None:
    from collections import Counter

    counts = Counter(item["done"] for item in document["marked"])
    typer.echo(
        f"{len(document['runs'])} runs; " + (", ".join(f"{n} {word}" for word, n in counts.items()) or "nothing marked")
    )
    for name, references in document["seen_by"].items():
        typer.echo(f"seen by {name}: {len(references)} resources")


def _registry() -> ModelRegistry:
    from ai_services.models.versions import ModelRegistry
    from foramen.kernel.database_url import database_url
    from foramen.kernel.settings import get_settings

    settings = get_settings()
    return ModelRegistry(database_url(settings), settings.home)


def _refused(reason: Exception) -> typer.BadParameter:
    return typer.BadParameter(str(reason))
