"""`foramen break-glass list|review|end`: emergency access, who used it and why, and what was thought of it."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from foramen.identity.rights.break_glass import BreakGlassCase

app = typer.Typer(no_args_is_help=True)
By = Annotated[str, typer.Option("--by", help="Account in whose name it is done; it needs review-break-glass.")]
Id = Annotated[uuid.UUID, typer.Argument(metavar="ID", help="Id that list printed.")]


@app.command("list")
def list_(
    by: By, all_: Annotated[bool, typer.Option("--all", help="Also what was reviewed, the newest first.")] = False
) -> None:
    """Print as JSON what waits for review, the oldest first: who, which patient (id), why, until when, overdue."""
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.break_glass import list_cases, list_unreviewed
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        administrator = require_account(connection, by)
        cases = (list_cases if all_ else list_unreviewed)(connection, administrator)
    typer.echo(json.dumps([_described(case) for case in cases], indent=2, ensure_ascii=False, default=str))


@app.command("review")
def review(
    case: Id,
    by: By,
    verdict: Annotated[str, typer.Option(help="justified or unjustified.")],
    note: Annotated[str, typer.Option(help="For reviewers, up to 500 characters; needed when unjustified.")] = "",
) -> None:
    """Judge an occasion that is over; nobody judges the own one, and it is done once."""
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.break_glass import Wall
    from foramen.identity.rights.break_glass import review as judge
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        # Whose patient it was is asked of the record, by the administration app; here only who acts everywhere judges.
        wall = Wall(get_settings().institutions)
        done = judge(connection, require_account(connection, by), case, verdict, note, wall=wall)
    typer.echo(json.dumps(_described(done), indent=2, ensure_ascii=False, default=str))


@app.command("end")
def end(case: Id, by: By) -> None:
    """End an occasion now; tokens that carry it are revoked."""
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import require_account
    from foramen.identity.rights.break_glass import end as end_case
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        done = end_case(connection, require_account(connection, by), case)
    typer.echo(json.dumps(_described(done), indent=2, ensure_ascii=False, default=str))


def _described(case: BreakGlassCase) -> dict[str, Any]:
    from dataclasses import asdict

    from foramen.identity.database import utc_now
    from foramen.kernel.audit_event import break_glass_policy

    now, within = utc_now(), timedelta(hours=get_settings().break_glass_review_h)
    described = asdict(case)
    del described["session_digest"]
    return described | {
        "in_force": case.in_force(now),
        "overdue": case.overdue(now, within),
        "accesses": f"AuditEvent?policy={break_glass_policy(str(case.id))}",
    }
