"""`foramen institution add|list`: the institutions that accounts belong to."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from foramen.kernel.settings import get_settings

app = typer.Typer(no_args_is_help=True)


@app.command("add")
def add(
    logical_id: Annotated[str, typer.Argument(metavar="ID", help="Logical id of the institution's Organization.")],
    name_zh: Annotated[str, typer.Option(help="Chinese name.")],
    name_en: Annotated[str, typer.Option(help="English name.")],
) -> None:
    """Add an institution, or rename it."""
    from foramen.identity.audit_outbox import record
    from foramen.identity.database import transaction
    from foramen.identity.rights.institutions import Institution, save_institution
    from foramen.identity.security_event import SUCCESS, SecurityEvent
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        save_institution(connection, Institution(logical_id, name_zh, name_en))
        said = f"{logical_id} added or renamed on the command line"
        record(connection, SecurityEvent("institution", SUCCESS, reason=said))
    typer.echo(json.dumps({"id": logical_id}))


@app.command("list")
def list_() -> None:
    """Print all institutions as JSON."""
    from dataclasses import asdict

    from foramen.identity.database import transaction
    from foramen.identity.rights.institutions import list_institutions
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        listed = [asdict(institution) for institution in list_institutions(connection)]
    typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
