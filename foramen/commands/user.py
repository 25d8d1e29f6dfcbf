"""`foramen user add|list|disable`: accounts of people."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from foramen.kernel.settings import get_settings

app = typer.Typer(no_args_is_help=True)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Account name.")],
    role: Annotated[str, typer.Option(help="physician, researcher, engineer, system-administrator, …")],
    institution: Annotated[str | None, typer.Option(help="Organization the account belongs to (id).")] = None,
    practitioner: Annotated[str | None, typer.Option(help="Practitioner behind the account (id).")] = None,
    patient: Annotated[str | None, typer.Option(help="Patient behind an account of role patient (id).")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
) -> None:
    """Create an account, or set its role and password."""
    from foramen.identity.accounts import ensure_user
    from foramen.kernel.database_url import database_url

    if not password_stdin:
        raise typer.BadParameter("the password is read from standard input", param_hint="--password-stdin")
    password = sys.stdin.readline().rstrip("\r\n")
    url = database_url(get_settings())
    ensure_user(url, name, password, role, practitioner, institution, patient=patient)
    typer.echo(json.dumps({"name": name, "role": role}))


@app.command("list")
def list_() -> None:
    """Print all accounts as JSON."""
    from dataclasses import asdict

    from foramen.identity.accounts import list_accounts
    from foramen.identity.database import transaction
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        accounts = list_accounts(connection)
    typer.echo(json.dumps([asdict(account) for account in accounts], indent=2, ensure_ascii=False))


@app.command("disable")
def disable(name: Annotated[str, typer.Argument(help="Account name.")]) -> None:
    """Disable an account: sessions end, tokens are revoked."""
    from foramen.identity.accounts import disable_account
    from foramen.identity.database import transaction
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        disable_account(connection, name)
    typer.echo(json.dumps({"name": name, "disabled": True}))
