"""`foramen dataset labels draw|show`: decisions of physicians as labelled rows of an immutable dataset version.

Contract module 2; docs/how-to/learn_from_corrections.md, ADR 0053.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from foramen.commands.research_access import looking
from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from ai_services.training.labels.consent import ConsentRule
    from ai_services.training.labels.draw import Drawn
    from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms

app = typer.Typer(no_args_is_help=True)
Project = Annotated[str, typer.Option(help="Project whose pseudonyms are used (foramen project add).")]
User = Annotated[str, typer.Option(help="Your account: it needs the permission train.")]
Basis = Annotated[
    str | None,
    typer.Option(help="Legal basis on which patients who were not asked take part too; who denies never does."),
]


@app.command()
def draw(
    folder: Annotated[Path, typer.Argument(help="New folder for the labels.")],
    project: Project,
    user: User,
    licence: Annotated[str, typer.Option(help="Terms under which the labels may be used.")],
    name: Annotated[str, typer.Option(help="Name of the dataset.")] = "corrections",
    basis: Basis = None,
    until: Annotated[str | None, typer.Option(help="Decisions before this instant only (ISO 8601, UTC).")] = None,
) -> None:
    """Draw what physicians decided on results of models; exit 1 when there is nothing to draw."""
    import asyncio

    from ai_services.training.dataset_version import DatasetError
    from ai_services.training.labels.draw import write
    from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms
    from foramen.kernel.project_keys import read_project_key

    if folder.exists() and any(folder.iterdir()):
        raise typer.BadParameter("the folder is not empty: a version is made once")
    with looking():
        pseudonyms = ProjectPseudonyms(read_project_key(get_settings().home, project))
    rule, why = consent_rule(basis)
    with looking():
        drawn = asyncio.run(_drawn(user, pseudonyms, rule, None if until is None else instant(until)))
    for reason, count in sorted(drawn.left_out.items()):
        if count:
            typer.echo(f"left out, {reason}: {count}")
    if not drawn.rows:
        typer.echo("no decision could be drawn")
        raise typer.Exit(1)
    try:
        path, version = write(folder, drawn, name=name, licence=licence, by=user, project=project, rule=rule, basis=why)
    except DatasetError as refused:
        raise typer.BadParameter(str(refused)) from refused
    show(folder)
    typer.echo(f"{drawn.reports} reports, version {version.digest[:12]}: {path}")


@app.command()
def show(folder: Annotated[Path, typer.Argument(help="Folder of drawn labels.")]) -> None:
    """Tell how often people agreed, by finding and model version."""
    from ai_services.training.dataset_version import DatasetError
    from ai_services.training.labels.draw import read

    try:
        rows = read(folder)
    except DatasetError as refused:
        raise typer.BadParameter(str(refused)) from refused
    counts: Counter[tuple[str, str, str]] = Counter(
        (row["finding"], (row["model"] or {}).get("version", "–"), row["verdict"]) for row in rows
    )
    table = Table("finding", "model version", "agreed", "corrected", "rejected")
    for finding, version in sorted({key[:2] for key in counts}):
        told = [str(counts[finding, version, verdict]) for verdict in ("agreed", "corrected", "rejected")]
        table.add_row(finding, version, *told)
    Console().print(table)


def consent_rule(basis: str | None) -> tuple[ConsentRule, str]:
    """Whose studies are used, and why in words; a basis that is empty is none."""
    from ai_services.training.labels.consent import ConsentRule

    if basis is None:
        return ConsentRule.PERMITTED, "Consent of scope research"
    if not basis.strip():
        raise typer.BadParameter("say the legal basis, e.g. the number of the ethics committee's waiver")
    return ConsentRule.NOT_DENIED, basis.strip()


def instant(text: str) -> str:
    """A FHIR instant in UTC from what somebody typed; a day is its first moment."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise typer.BadParameter("an instant looks like 2026-11-01 or 2026-11-01T00:00:00Z") from exc
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


async def _drawn(user: str, pseudonyms: ProjectPseudonyms, rule: ConsentRule, until: str | None) -> Drawn:
    from ai_services.training.labels.draw import SCOPES
    from ai_services.training.labels.draw import draw as draw_labels
    from foramen.commands.research_access import doors, researcher_token

    settings = get_settings()
    async with doors(settings, researcher_token(settings, user, SCOPES)) as open_:
        return await draw_labels(open_.fhir, pseudonyms, rule, datetime.now(UTC).date(), until)
