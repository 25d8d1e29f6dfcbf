"""`foramen client add|list|show|approve|reject|disable|enable`: OAuth clients, and what becomes of their registrations.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-registration.html (registration by an administrator)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from foramen.kernel.settings import get_settings

app = typer.Typer(no_args_is_help=True)


@app.command("add")
def add(
    client_id: Annotated[str, typer.Argument(help="Client id.")],
    scopes: Annotated[str, typer.Option(help='Scopes the client may be granted at most, e.g. "launch patient/*.rs".')],
    public: Annotated[bool, typer.Option("--public", help="No credentials; PKCE only.")] = False,
    secret: Annotated[
        bool, typer.Option("--secret", help="Client secret (client_secret_basic), printed once.")
    ] = False,
    jwks: Annotated[Path | None, typer.Option(help="File with the public JWKS (private_key_jwt).")] = None,
    redirect_uri: Annotated[list[str] | None, typer.Option(help="Exact redirect URI; may be repeated.")] = None,
    launch_url: Annotated[str | None, typer.Option(help="URL that an EHR launch opens.")] = None,
    name: Annotated[str | None, typer.Option(help="Name shown on the consent page.")] = None,
    jwks_uri: Annotated[str | None, typer.Option(help="URL of the public JWKS (private_key_jwt).")] = None,
    require_par: Annotated[bool, typer.Option("--require-par", help="Pushed authorization requests only.")] = False,
) -> None:
    """Register a client, or replace its registration; prints JSON."""
    from foramen.identity.audit_outbox import record
    from foramen.identity.database import transaction
    from foramen.identity.oauth import clients
    from foramen.identity.opaque_tokens import new_opaque_token
    from foramen.identity.security_event import SUCCESS, SecurityEvent
    from foramen.kernel.database_url import database_url

    if [public, secret, jwks is not None, jwks_uri is not None].count(True) != 1:
        raise typer.BadParameter("choose exactly one of --public, --secret, --jwks and --jwks-uri")
    client_secret = new_opaque_token() if secret else None
    client = clients.Client(
        client_id=client_id,
        auth_method=clients.PUBLIC if public else clients.SECRET if secret else clients.PRIVATE_KEY,
        scope=" ".join(scopes.split()),
        redirect_uris=tuple(redirect_uri or ()),
        launch_url=launch_url,
        name_zh=name or client_id,
        name_en=name or client_id,
        secret_hash=clients.generated_secret_hash(client_secret) if client_secret else None,
        jwks=_read_jwks(jwks) if jwks else None,
        jwks_uri=jwks_uri,
        require_pushed=require_par,
    )
    with transaction(database_url(get_settings())) as connection:
        clients.save_client(connection, client)
        said = "registered on the command line"
        record(connection, SecurityEvent("client-registration", SUCCESS, client_id=client_id, reason=said))
    printed = {"client_id": client_id, **({"client_secret": client_secret} if client_secret else {})}
    typer.echo(json.dumps(printed))


def _read_jwks(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise typer.BadParameter(f"{path} cannot be read as JSON", param_hint="--jwks") from exc
    if isinstance(content, dict) and "kty" in content:
        return {"keys": [content]}
    if not isinstance(content, dict) or not isinstance(content.get("keys"), list):
        raise typer.BadParameter(f"{path} holds neither a JWK nor a JWKS", param_hint="--jwks")
    return content


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help="pending, approved, rejected or withdrawn.")] = None,
) -> None:
    """Print clients as JSON: where they send people, what they may do, their keys; without secrets."""
    from foramen.identity.database import transaction
    from foramen.identity.oauth.client_approval import described, is_disabled
    from foramen.identity.oauth.clients import list_clients
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        listed = [
            {
                **described(client),
                "status": client.status,
                "disabled": is_disabled(connection, client.client_id),
            }
            for client in list_clients(connection, status=status)
        ]
    _print(listed)


@app.command("show")
def show(client_id: Annotated[str, typer.Argument(help="Client id.")]) -> None:
    """Print one registration as JSON, to look at before approving it; `digest` names what was shown."""
    from foramen.identity.oauth.client_approval import find_described

    _decide(lambda connection: _print(find_described(connection, client_id)))


@app.command("approve")
def approve(
    client_id: Annotated[str, typer.Argument(help="Client id.")],
    scopes: Annotated[str | None, typer.Option(help="Scopes in place of those the client asked for.")] = None,
    digest: Annotated[
        str | None, typer.Option(help="What `show` printed as digest: refuse if the registration has changed since.")
    ] = None,
) -> None:
    """Approve a registration: from now on the client may act. Prints what was approved as JSON."""
    from foramen.identity.oauth.client_approval import approve_client, described

    def act(connection: Any) -> None:
        _print({**described(approve_client(connection, client_id, scope=scopes, seen=digest)), "status": "approved"})

    _decide(act)


def _print(shown: object) -> None:
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))


@app.command("reject")
def reject(client_id: Annotated[str, typer.Argument(help="Client id.")]) -> None:
    """Reject a registration."""
    from foramen.identity.oauth.client_approval import reject_client

    _decide(lambda connection: reject_client(connection, client_id))


@app.command("disable")
def disable(client_id: Annotated[str, typer.Argument(help="Client id.")]) -> None:
    """Disable a client and revoke its tokens."""
    from foramen.identity.oauth.client_approval import disable_client

    _decide(lambda connection: disable_client(connection, client_id))


@app.command("enable")
def enable(client_id: Annotated[str, typer.Argument(help="Client id.")]) -> None:
    """Enable a disabled client again; its old tokens stay revoked."""
    from foramen.identity.oauth.client_approval import disable_client

    _decide(lambda connection: disable_client(connection, client_id, disabled=False))


def _decide(act: Callable[[Any], None]) -> None:
    from foramen.identity.database import transaction
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        act(connection)
