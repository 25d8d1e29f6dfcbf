"""`foramen dataset queue`: which studies to annotate next, as Tasks for annotators.

Contract module 2; docs/how-to/learn_from_corrections.md, ADR 0053.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from foramen.commands.dataset_labels import Basis, User, consent_rule
from foramen.commands.research_access import looking
from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from ai_services.training.active_learning.queue import Queue
    from ai_services.training.active_learning.tasks import Changes
    from ai_services.training.labels.consent import ConsentRule

_SHOWN = 20


def queue(
    user: User,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many studies the queue holds.")] = 50,
    diversity: Annotated[
        float, typer.Option(min=0, max=1, help="Share of being unlike others; the rest: unsure.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Breaks ties.")] = 1,
    basis: Basis = None,
    look: Annotated[bool, typer.Option("--look", help="Only show; write no Task.")] = False,
) -> None:
    """Order results that nobody has decided on; finished annotations leave. Exit 1 when there is none."""
    import asyncio

    rule, _ = consent_rule(basis)
    with looking():
        made, changed = asyncio.run(_made(user, rule, limit, diversity, seed, look=look))
    table = Table("rank", "report", "unsure", "unlike", "why")
    for item in made.wanted[:_SHOWN]:
        row = (str(item.rank), item.report.partition("/")[2], f"{item.uncertainty:.3f}", f"{item.distance:.3f}")
        table.add_row(*row, f"{item.reason_zh}\n{item.reason_en}")
    Console().print(table)
    for reason, count in sorted(made.left_out.items()):
        if count:
            typer.echo(f"left out, {reason}: {count}")
    typer.echo(f"{len(made.wanted)} of {made.candidates} candidates; {made.labelled} results are labelled")
    if changed is not None:
        typer.echo(
            f"Tasks: {changed.new} new, {changed.moved} moved, {changed.done} done, {changed.taken_back} taken back"
        )
    if not made.wanted:
        raise typer.Exit(1)


async def _made(
    user: str, rule: ConsentRule, limit: int, diversity: float, seed: int, *, look: bool
) -> tuple[Queue, Changes | None]:
    from ai_services.training.active_learning.queue import SCOPES, build, publish
    from ai_services.training.labels.draw import SCOPES as READING
    from foramen.commands.research_access import doors, researcher_token

    settings, now = get_settings(), datetime.now(UTC)
    async with doors(settings, researcher_token(settings, user, f"{READING} {SCOPES}")) as open_:
        made = await build(
            open_.fhir, open_.scanners, rule=rule, on=now.date(), limit=limit, seed=seed, diversity=diversity
        )
        if look:
            return made, None
        at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return made, await publish(open_.fhir, made, seed=seed, now=at)
