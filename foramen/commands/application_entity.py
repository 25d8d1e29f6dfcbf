"""`foramen aet`, `foramen forward`, `foramen prefetch`: AE accounts, and the rules by which images go out and come in.

docs/how-to/connect_a_pacs.md
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from foramen.kernel.settings import get_settings

app = typer.Typer(no_args_is_help=True)
forward = typer.Typer(no_args_is_help=True)
prefetch = typer.Typer(no_args_is_help=True)

Title = Annotated[str, typer.Argument(metavar="AET", help="AE title of the peer (1 to 16 characters).")]
Name = Annotated[str, typer.Argument(help="Name of the rule.")]
Modality = Annotated[list[str] | None, typer.Option(help="Modality, e.g. MR; may be repeated. All without it.")]
BodyPart = Annotated[list[str] | None, typer.Option(help="Body Part Examined, e.g. LSPINE; may be repeated.")]


def _url() -> str:
    from foramen.kernel.database_url import database_url

    return database_url(get_settings())


def _print(shown: object) -> None:
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False, default=str))


@app.command("add")
def add(
    aet: Title,
    rights: Annotated[str, typer.Option(help="With commas: find, get, move, store, commit, mwl, mpps, reject.")] = "",
    host: Annotated[str | None, typer.Option(help="Host of the peer: calls must come from it, and go to it.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on which the peer listens.")] = None,
    institution: Annotated[str | None, typer.Option(help="Logical id of its institution's Organization.")] = None,
    every_institution: Annotated[bool, typer.Option("--every-institution", help="No institution bounds it.")] = False,
    any_address: Annotated[bool, typer.Option("--any-address", help="Believe its title from any address.")] = False,
    tls: Annotated[bool, typer.Option("--tls", help="Call it by TLS.")] = False,
    fingerprint: Annotated[str | None, typer.Option(help="SHA-256 of its TLS certificate.")] = None,
    inactive: Annotated[bool, typer.Option("--inactive", help="Keep the account, refuse its calls.")] = False,
) -> None:
    """Add an AE account, or replace it."""
    from dicomweb.dimse import application_entity as entities
    from dicomweb.dimse.accounts import save_account

    account = entities.ApplicationEntity(
        ae_title=entities.require_ae_title(aet),
        rights=entities.require_rights(rights),
        host=host,
        port=port,
        institution=entities.require_institution(institution) if institution else None,
        every_institution=every_institution,
        any_address=any_address,
        use_tls=tls,
        tls_fingerprint=entities.require_fingerprint(fingerprint) if fingerprint else None,
        active=not inactive,
    )
    save_account(_url(), account)
    _audit(f"AE account {account.ae_title} added or replaced on the command line")
    typer.echo(json.dumps({"ae_title": account.ae_title, "rights": sorted(account.rights)}))


@app.command("list")
def list_() -> None:
    """Print all AE accounts as JSON."""
    from dataclasses import asdict

    from dicomweb.dimse.accounts import list_accounts

    _print([asdict(account) | {"rights": sorted(account.rights)} for account in list_accounts(_url())])


@app.command("remove")
def remove(aet: Title) -> None:
    """Remove an AE account, with the rules that name it."""
    from dicomweb.dimse.accounts import remove_account

    remove_account(_url(), aet.strip())
    _audit(f"AE account {aet.strip()} removed on the command line")
    typer.echo(json.dumps({"removed": aet.strip()}))


@app.command("echo")
def echo(aet: Title) -> None:
    """Call a peer and verify (C-ECHO); exit 1 when it does not answer."""
    from dicomweb.dimse.accounts import get_account
    from dicomweb.dimse.verification import verify

    answered = verify(get_settings(), get_account(_url(), aet.strip()))
    typer.echo(json.dumps({"ae_title": aet.strip(), "answered": answered}))
    if not answered:
        raise typer.Exit(1)


@forward.command("add")
def forward_add(
    name: Name,
    to: Annotated[str, typer.Option("--to", help="AE title of the destination, an AE account with host and port.")],
    modality: Modality = None,
    body_part: BodyPart = None,
    own_output: Annotated[bool, typer.Option("--own-output", help="Series that this system made, too.")] = False,
) -> None:
    """Add a rule: what is registered from now on and falls under it is sent to the destination."""
    from dicomweb.dimse.rules import add_forward_rule

    parts = {"modalities": modality or [], "body_parts": body_part or []}
    add_forward_rule(_url(), name, to, own_output=own_output, **parts)
    _audit("a rule of forwarding was added or replaced on the command line")
    typer.echo(json.dumps({"rule": name, "destination": to}))


@forward.command("status")
def forward_status() -> None:
    """Print the rules with what was sent, what waits and what failed."""
    _status("forward")


@forward.command("retry")
def forward_retry(name: Name) -> None:
    """Try again what a rule has given up."""
    _retry("forward", name)


@forward.command("remove")
def forward_remove(name: Name) -> None:
    """Remove a rule, with what it had still to send."""
    _remove("forward", name)


@prefetch.command("add")
def prefetch_add(
    name: Name,
    source: Annotated[str, typer.Option("--from", help="AE title of the outside PACS, an AE account.")],
    modality: Modality = None,
    body_part: BodyPart = None,
    years: Annotated[int, typer.Option(min=1, max=50, help="How far back priors are fetched.")] = 5,
    most: Annotated[int, typer.Option(min=1, max=100, help="Priors fetched for one study or order at most.")] = 5,
) -> None:
    """Add a rule: a study or order that falls under it has the patient's priors fetched."""
    from dicomweb.dimse.rules import add_prefetch_rule

    parts = {"modalities": modality or [], "body_parts": body_part or []}
    add_prefetch_rule(_url(), name, source, years=years, most=most, **parts)
    _audit("a rule of prefetching was added or replaced on the command line")
    typer.echo(json.dumps({"rule": name, "source": source}))


@prefetch.command("status")
def prefetch_status() -> None:
    """Print the rules with what was fetched, what waits and what failed."""
    _status("prefetch")


@prefetch.command("retry")
def prefetch_retry(name: Name) -> None:
    """Try again what a rule has given up."""
    _retry("prefetch", name)


@prefetch.command("remove")
def prefetch_remove(name: Name) -> None:
    """Remove a rule, with what it had still to fetch."""
    _remove("prefetch", name)


def _status(kind: str) -> None:
    from dicomweb.dimse.rules import rules_status

    _print(rules_status(_url(), kind))


def _retry(kind: str, name: str) -> None:
    from dicomweb.dimse.rules import retry_failed

    typer.echo(json.dumps({"retried": retry_failed(_url(), kind, name)}))


def _remove(kind: str, name: str) -> None:
    from dicomweb.dimse.rules import remove_rule

    remove_rule(_url(), kind, name)
    _audit(f"a rule of {kind}ing was removed on the command line")
    typer.echo(json.dumps({"removed": name}))


def _audit(said: str) -> None:
    from foramen.identity.audit_outbox import record
    from foramen.identity.database import transaction
    from foramen.identity.security_event import SUCCESS, SecurityEvent

    with transaction(_url()) as connection:
        record(connection, SecurityEvent("application-entity", SUCCESS, reason=said))
