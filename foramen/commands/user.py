"""`foramen user add|list|disable|enable|unlock|reset-second-factor`: accounts of people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foramen.kernel.settings import get_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Account name.")]


@app.command("add")
def add(
    name: Name,
    role: Annotated[str, typer.Option(help="physician, researcher, engineer, system-administrator, …")],
    institution: Annotated[str | None, typer.Option(help="Organization the account belongs to (id).")] = None,
    practitioner: Annotated[str | None, typer.Option(help="Practitioner behind the account (id).")] = None,
    patient: Annotated[str | None, typer.Option(help="Patient behind an account of role patient (id).")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    new_holder: Annotated[
        bool, typer.Option("--new-holder", help="The name passes to somebody else: factors, consents, grants end.")
    ] = False,
) -> None:
    """Create an account, or set its role and password (12 characters or more, not a common one).

    An account that was disabled, or gets another Practitioner or Patient, has a new holder in any case.
    """
    from foramen.identity.audit_outbox import record
    from foramen.identity.database import transaction
    from foramen.identity.people.accounts import any_account, save_account
    from foramen.identity.security_event import SUCCESS, SecurityEvent
    from foramen.kernel.database_url import database_url

    if not password_stdin:
        raise typer.BadParameter("the password is read from standard input", param_hint="--password-stdin")
    password = sys.stdin.readline().rstrip("\r\n")
    links = {"practitioner": practitioner, "patient": patient, "institution": institution}
    with transaction(database_url(get_settings())) as connection:
        done = "created" if any_account(connection, name) is None else "set"
        save_account(connection, name, password, role, **links, new_holder=new_holder)
        said = f"{done} as {role} on the command line"
        record(connection, SecurityEvent("account", SUCCESS, concerns=name, reason=said))
    typer.echo(json.dumps({"name": name, "role": role}))


@app.command("list")
def list_() -> None:
    """Print all accounts as JSON: role, links, whether locked, which second factors."""
    from dataclasses import asdict

    from foramen.identity.database import transaction, utc_now
    from foramen.identity.people.accounts import is_locked, list_accounts
    from foramen.identity.people.second_factor import enrolled
    from foramen.kernel.database_url import database_url

    listed: list[dict[str, Any]] = []
    with transaction(database_url(get_settings())) as connection:
        for account in list_accounts(connection):
            have = enrolled(connection, account.name)
            factors = {
                "authenticator_apps": len(have.devices),
                "passkeys": len(have.passkeys),
                "recovery_codes_left": have.codes_left,
            }
            locked = is_locked(connection, account.name, utc_now())
            listed.append({**asdict(account), "locked": locked, "second_factor": factors})
    typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))


@app.command("disable")
def disable(name: Name) -> None:
    """Disable an account: sessions end, tokens are revoked."""
    from foramen.identity.people.accounts import disable_account

    _change(name, disable_account, "account", "disabled")
    typer.echo(json.dumps({"name": name, "disabled": True}))


@app.command("enable")
def enable(name: Name) -> None:
    """Let a disabled account sign in again."""
    from foramen.identity.people.accounts import enable_account

    _change(name, enable_account, "account", "enabled")
    typer.echo(json.dumps({"name": name, "disabled": False}))


@app.command("unlock")
def unlock(name: Name) -> None:
    """End the lock that failed passwords or codes have put on an account."""
    from foramen.identity.people.accounts import unlock_account

    _change(name, unlock_account, "account", "unlocked")
    typer.echo(json.dumps({"name": name, "locked": False}))


@app.command("reset-second-factor")
def reset(name: Name) -> None:
    """Remove all second factors and recovery codes of an account and end its sessions: for a lost or stolen device."""
    from foramen.identity.people.second_factor import reset_second_factor

    _change(name, reset_second_factor, "second-factor", "reset")
    typer.echo(json.dumps({"name": name, "second_factor": None}))


def _change(name: str, change: Callable[[Connection, str], None], what: str, reason: str) -> None:
    """Do one change with its audit event, in one transaction."""
    from foramen.identity.audit_outbox import record
    from foramen.identity.database import transaction
    from foramen.identity.security_event import SUCCESS, SecurityEvent
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        change(connection, name)
        record(connection, SecurityEvent(what, SUCCESS, account=name, reason=f"{reason} on the command line"))
