"""`foramen model watch`: whether a version's scores drift and who overrides it more; `model reference` freezes scores.

Contract module 2; docs/how-to/watch_a_model.md, ADR 0053. Exit status: 0 everything could be told and is steady,
1 alarm, 3 something cannot be told (too few, no reference), 2 it could not look.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from foramen.commands.dataset_labels import instant
from foramen.commands.research_access import looking
from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from ai_services.monitoring.judged import JudgedReport
    from ai_services.monitoring.reference import Reference
    from ai_services.monitoring.thresholds import Thresholds
    from ai_services.monitoring.watch import Watch

Version = Annotated[str, typer.Argument(help="Version, as its manifest names it.")]
Pipeline = Annotated[str, typer.Option(help="Pipeline that the version belongs to.")]
ThresholdFile = Annotated[
    Path | None, typer.Option(help="YAML as ai_services/monitoring/thresholds.yaml, which counts without it.")
]
_STATUS = {"steady": 0, "alarm": 1, "too-few": 3}
_DAYS = 90


def watch(
    version: Version,
    since: Annotated[str | None, typer.Option(help="Begin (UTC); 90 days before the end without it.")] = None,
    until: Annotated[str | None, typer.Option(help="End (UTC), not included; today's midnight without it.")] = None,
    reference: Annotated[Path | None, typer.Option(help="File of foramen model reference.")] = None,
    thresholds: ThresholdFile = None,
    page: Annotated[Path | None, typer.Option(help="Write the page here (Chinese), the English one beside it.")] = None,
    name: Pipeline = "lumbar_mr",
    look: Annotated[bool, typer.Option("--look", help="Write no MeasureReport.")] = False,
) -> None:
    """Watch a version over a period: drift of scores, overrides by group; writes a MeasureReport."""
    import asyncio

    from ai_services.monitoring.page import write_pages
    from ai_services.monitoring.reference import WatchReferenceError, read_reference

    period, limits = _period(since, until), _thresholds(thresholds)
    try:
        known = None if reference is None else read_reference(reference, name, version)
    except WatchReferenceError as refused:
        raise typer.BadParameter(str(refused)) from refused
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    with looking():
        watched, written = asyncio.run(_watched(name, version, period, known, limits, None if look else now))
    if page is not None:
        write_pages(page, watched, now)
    _tell(watched)
    if written:
        typer.echo(written)
    raise typer.Exit(_STATUS[watched.outcome])


def reference(
    version: Version,
    out: Annotated[Path, typer.Argument(help="File for the reference; it must not be there yet.")],
    since: Annotated[str, typer.Option(help="Begin of the period whose scores are the reference (UTC).")],
    until: Annotated[str, typer.Option(help="Its end, not included.")],
    thresholds: ThresholdFile = None,
    name: Pipeline = "lumbar_mr",
) -> None:
    """Freeze a version's scores over a period, without persons, for later watches to compare with."""
    import asyncio
    import hashlib

    from ai_services.monitoring.reference import written
    from ai_services.monitoring.watch import latest, samples_of

    period, limits = _period(since, until), _thresholds(thresholds)
    if out.exists():
        raise typer.BadParameter("the file is there already: a reference is frozen once")
    with looking():
        reports = latest(asyncio.run(_results(name, version, period)))
    if len({report.patient for report in reports}) < limits.patients:
        typer.echo(f"fewer than {limits.patients} patients: too few for a reference", err=True)
        raise typer.Exit(3)
    content = written(name, version, period, samples_of(reports, name))
    out.write_bytes(content)
    typer.echo(f"{len(reports)} studies, reference {hashlib.sha256(content).hexdigest()[:12]}: {out}")


def _period(since: str | None, until: str | None) -> tuple[str, str]:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = instant(until) if until else instant(today.isoformat())
    begin = instant(since) if since else instant((datetime.fromisoformat(end) - timedelta(days=_DAYS)).isoformat())
    if datetime.fromisoformat(begin) >= datetime.fromisoformat(end):
        raise typer.BadParameter("the period ends before it begins")
    return begin, end


def _thresholds(path: Path | None) -> Thresholds:
    from ai_services.monitoring.thresholds import DEFAULT, ThresholdError, read_thresholds

    try:
        return read_thresholds(path or DEFAULT)
    except ThresholdError as refused:
        raise typer.BadParameter(str(refused)) from refused


def _weights(name: str, version: str) -> list[str]:
    from ai_services.models.stages import StageError
    from ai_services.models.versions import ModelRegistry
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    try:
        return list(ModelRegistry(database_url(settings), settings.home).version(name, version).weights.values())
    except StageError as refused:
        raise typer.BadParameter(str(refused)) from refused


def _token() -> str:
    from ai_services.monitoring.run import SCOPES
    from foramen.identity.oauth.operator_token import operator_token
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    return operator_token(settings, database_url(settings), SCOPES, expires_in_s=86_400)


async def _results(name: str, version: str, period: tuple[str, str]) -> list[JudgedReport]:
    from ai_services.monitoring.run import results_of
    from foramen.commands.research_access import doors

    weights = _weights(name, version)
    async with doors(get_settings(), _token()) as open_:
        reports, _ = await results_of(open_.fhir, weights, period)
    return reports


async def _watched(
    name: str,
    version: str,
    period: tuple[str, str],
    reference: Reference | None,
    thresholds: Thresholds,
    now: str | None,
) -> tuple[Watch, str]:
    from ai_services.monitoring.run import observe, publish
    from foramen.commands.research_access import doors

    model = (name, version, _weights(name, version))
    async with doors(get_settings(), _token()) as open_:
        watched = await observe(open_.fhir, open_.scanners, model, period, reference, thresholds)
        if now is None:
            return watched, ""
        written, changed = await publish(open_.fhir, watched, now)
    return watched, f"{written} {'written' if changed else 'says so already'}"


def _tell(watched: Watch) -> None:
    table = Table("score", "outcome", "PSI", "KS", "patients")
    for item in watched.drift:
        figures = ["–" if value is None else f"{value:.3f}" for value in (item.psi, item.ks)]
        table.add_row(item.name, item.outcome, *figures, "–" if item.patients is None else str(item.patients))
    rates = Table("group", "outcome", "overridden", "95 %")
    groups = [("all", watched.overrides)]
    groups += [(f"{kind} {name}", rate) for kind, cells in watched.groups.items() for name, rate in cells.items()]
    for name, rate in groups:
        shown = ["–", "–"]
        if rate.value is not None and rate.low is not None and rate.high is not None:
            shown = [f"{rate.overridden} of {rate.decided}", f"{rate.low:.2f} – {rate.high:.2f}"]
        rates.add_row(name, rate.outcome, *shown)
    console = Console()
    console.print(table)
    console.print(rates)
    for reason, count in watched.left_out.items():
        typer.echo(f"left out, {reason}: {count}")
    typer.echo(f"{watched.name} {watched.version}, {watched.since} to {watched.until}: {watched.outcome}")
