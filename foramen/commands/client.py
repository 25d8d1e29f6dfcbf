"""`foramen client add|list`: register OAuth clients.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-registration.html (registration by an administrator)
"""

from __future__ import annotations

import json
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
) -> None:
    """Register a client, or replace its registration; prints JSON."""
    from foramen.identity import clients
    from foramen.identity.database import transaction
    from foramen.identity.opaque_tokens import new_opaque_token
    from foramen.identity.passwords import hash_client_secret
    from foramen.kernel.database_url import database_url

    if [public, secret, jwks is not None].count(True) != 1:
        raise typer.BadParameter("choose exactly one of --public, --secret and --jwks")
    client_secret = new_opaque_token() if secret else None
    client = clients.Client(
        client_id=client_id,
        auth_method=clients.PUBLIC if public else clients.SECRET if secret else clients.PRIVATE_KEY,
        scope=" ".join(scopes.split()),
        redirect_uris=tuple(redirect_uri or ()),
        launch_url=launch_url,
        name_zh=name or client_id,
        name_en=name or client_id,
        secret_hash=hash_client_secret(client_secret) if client_secret else None,
        jwks=_read_jwks(jwks) if jwks else None,
    )
    with transaction(database_url(get_settings())) as connection:
        clients.save_client(connection, client)
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
def list_() -> None:
    """Print all clients as JSON, without secrets."""
    from foramen.identity.clients import list_clients
    from foramen.identity.database import transaction
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        clients = list_clients(connection)
    listed = [
        {
            "client_id": client.client_id,
            "token_endpoint_auth_method": client.auth_method,
            "scope": client.scope,
            "redirect_uris": list(client.redirect_uris),
            "launch_url": client.launch_url,
            "first_party": client.first_party,
        }
        for client in clients
    ]
    typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
