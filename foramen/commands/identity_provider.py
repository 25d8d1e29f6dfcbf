"""`foramen identity-provider add|list|enable|disable|remove`: outside providers that people may sign in through.

https://openid.net/specs/openid-connect-core-1_0.html, https://apereo.github.io/cas/7.1.x/protocol/CAS-Protocol.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from foramen.kernel.settings import get_settings

app = typer.Typer(no_args_is_help=True)
ProviderId = Annotated[str, typer.Argument(metavar="ID", help="Its name in addresses: small letters, digits, -.")]


def _pairs(values: list[str] | None, first: str, second: str, option: str) -> list[dict[str, str]]:
    """Read NAME=VALUE; the last = divides, as names of groups (LDAP) hold some."""
    found = []
    for text in values or ():
        name, sign, value = text.rpartition("=")
        if not (name and sign and value):
            raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint=option)
        found.append({first: name, second: value})
    return found


@app.command("add")
def add(
    provider_id: ProviderId,
    issuer: Annotated[str, typer.Option(help="Issuer (OpenID Connect), or base URL of the CAS server.")],
    name_zh: Annotated[str, typer.Option(help="Chinese name on the sign-in page.")],
    name_en: Annotated[str, typer.Option(help="English name on the sign-in page.")],
    kind: Annotated[str, typer.Option(help="oidc or cas.")] = "oidc",
    client_id: Annotated[str | None, typer.Option(help="Our client id there.")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="File that holds our client secret.")] = None,
    token_auth: Annotated[
        str, typer.Option(help="client_secret_basic, client_secret_post or none.")
    ] = "client_secret_basic",  # noqa: S107  a name of RFC 7591
    scope: Annotated[str, typer.Option(help="Scopes to ask for.")] = "openid profile",
    algorithm: Annotated[list[str] | None, typer.Option(help="Signature to accept; default RS256 PS256 ES256.")] = None,
    network: Annotated[list[str] | None, typer.Option(help="Network that is not public, to be reached (CIDR).")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificate authorities in place of the machine's own.")] = None,
    create_accounts: Annotated[
        bool,
        typer.Option("--create-accounts", help="The first sign-in of a member of a mapped group makes an account."),
    ] = False,
    groups_claim: Annotated[str, typer.Option(help="Claim of the groups; a.b looks inside an object.")] = "groups",
    map_group: Annotated[list[str] | None, typer.Option(help="GROUP=ROLE; the first that fits decides.")] = None,
    institution: Annotated[str | None, typer.Option(help="Institution of all its accounts.")] = None,
    institution_claim: Annotated[str | None, typer.Option(help="Claim of the institution; default the groups.")] = None,
    map_institution: Annotated[list[str] | None, typer.Option(help="VALUE=INSTITUTION.")] = None,
    practitioner_claim: Annotated[str | None, typer.Option(help="Claim that names the Practitioner.")] = None,
    name_claim: Annotated[str, typer.Option(help="Claim that new accounts are named after.")] = "preferred_username",
    acr_values: Annotated[str, typer.Option(help="acr_values to ask for.")] = "",
    acr_claim: Annotated[str, typer.Option(help="Claim that holds the acr.")] = "acr",
    amr_claim: Annotated[str, typer.Option(help="Claim that holds the amr.")] = "amr",
    two_factor_acr: Annotated[list[str] | None, typer.Option(help="acr that is believed to be two factors.")] = None,
    two_factor_amr: Annotated[list[str] | None, typer.Option(help="amr that is believed to be two factors.")] = None,
    clock_skew: Annotated[int, typer.Option(help="Seconds that its clock may differ, at most 300.")] = 60,
    no_single_logout: Annotated[
        bool, typer.Option("--no-single-logout", help="Signing out here does not sign out there.")
    ] = False,
) -> None:
    """Add a provider, or replace what is configured for it; prints JSON with the addresses to register there."""
    from foramen.identity.federation.providers import Provider, parse_settings, save_provider, seal_secret
    from foramen.identity.sealing import open_data_keys

    settings = get_settings()
    values: dict[str, Any] = {
        "networks": network or [],
        "ca_file": str(ca_file.resolve()) if ca_file else None,
        "scope": scope,
        "token_auth": token_auth,
        "create_accounts": create_accounts,
        "groups_claim": groups_claim,
        "roles": _pairs(map_group, "group", "role", "--map-group"),
        "institution": institution,
        "institution_claim": institution_claim,
        "institutions": _pairs(map_institution, "value", "institution", "--map-institution"),
        "practitioner_claim": practitioner_claim,
        "name_claim": name_claim,
        "acr_values": acr_values,
        "acr_claim": acr_claim,
        "amr_claim": amr_claim,
        "two_factor_acr": two_factor_acr or [],
        "two_factor_amr": two_factor_amr or [],
        "clock_skew_s": clock_skew,
        "single_logout": not no_single_logout,
        **({"algorithms": algorithm} if algorithm else {}),
    }
    secret = _secret(secret_file)
    keys = open_data_keys(settings)
    provider = Provider(
        id=provider_id,
        kind=kind,
        issuer=issuer,
        name_zh=name_zh,
        name_en=name_en,
        client_id=client_id,
        settings=parse_settings(values),
        sealed_secret=seal_secret(keys, provider_id, secret) if secret else None,
    )
    _change(lambda connection: save_provider(connection, provider), f"added {provider_id}")
    typer.echo(json.dumps({"id": provider_id, **_addresses(settings.origin, provider_id, kind)}, indent=2))


def _secret(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter("the file cannot be read", param_hint="--secret-file") from exc
    if not secret:
        raise typer.BadParameter("the file is empty", param_hint="--secret-file")
    return secret


def _addresses(origin: str, provider_id: str, kind: str) -> dict[str, str]:
    base = f"{origin}/auth/federation/{provider_id}"
    if kind == "cas":
        return {"service": f"{base}/callback", "logout_service": f"{base}/signed-out"}
    return {
        "redirect_uri": f"{base}/callback",
        "post_logout_redirect_uri": f"{base}/signed-out",
        "backchannel_logout_uri": f"{base}/backchannel-logout",
    }


@app.command("list")
def list_() -> None:
    """Print all providers as JSON, without secrets."""
    from foramen.identity.database import transaction
    from foramen.identity.federation.providers import list_providers
    from foramen.kernel.database_url import database_url

    settings = get_settings()
    with transaction(database_url(settings)) as connection:
        listed = [
            {
                "id": provider.id,
                "kind": provider.kind,
                "enabled": provider.enabled,
                "issuer": provider.issuer,
                "name_zh": provider.name_zh,
                "name_en": provider.name_en,
                "client_id": provider.client_id,
                "has_secret": provider.sealed_secret is not None,
                **_addresses(settings.origin, provider.id, provider.kind),
                "settings": provider.settings.model_dump(mode="json"),
            }
            for provider in list_providers(connection)
        ]
    typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))


@app.command("enable")
def enable(provider_id: ProviderId) -> None:
    """Let people sign in through a provider again."""
    from foramen.identity.federation.providers import set_enabled

    _change(lambda connection: set_enabled(connection, provider_id, enabled=True), f"enabled {provider_id}")


@app.command("disable")
def disable(provider_id: ProviderId) -> None:
    """Let nobody sign in through a provider; sessions that came from it end."""
    from foramen.identity.federation.outside_sessions import end_of_provider
    from foramen.identity.federation.providers import set_enabled

    def act(connection: Any) -> None:
        set_enabled(connection, provider_id, enabled=False)
        end_of_provider(connection, provider_id, f"{provider_id} is disabled")

    _change(act, f"disabled {provider_id}")


@app.command("remove")
def remove(provider_id: ProviderId) -> None:
    """Remove a provider; sessions that came from it end, accounts and links stay."""
    from foramen.identity.federation.outside_sessions import end_of_provider
    from foramen.identity.federation.providers import delete_provider

    def act(connection: Any) -> None:
        end_of_provider(connection, provider_id, f"{provider_id} is removed")
        delete_provider(connection, provider_id)

    _change(act, f"removed {provider_id}")


def _change(act: Callable[[Any], None], said: str) -> None:
    from foramen.commands.permission import OPERATOR
    from foramen.identity.audit_outbox import record
    from foramen.identity.database import transaction
    from foramen.identity.security_event import SUCCESS, SecurityEvent
    from foramen.kernel.database_url import database_url

    with transaction(database_url(get_settings())) as connection:
        act(connection)
        record(connection, SecurityEvent("identity-provider", SUCCESS, account=OPERATOR, reason=said))
