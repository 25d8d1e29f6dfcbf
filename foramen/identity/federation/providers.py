"""The outside identity providers that are configured; their client secrets are sealed.

RFC 6749 §2.3.1; an issuer belongs to one provider only, so that a subject cannot mean two people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.federation.provider_settings import ProviderSettings
from foramen.identity.oauth.client_checks import check_web_uri
from foramen.identity.rights.institutions import known_institution
from foramen.identity.sealed_columns import provider_purpose
from foramen.identity.sealing import DataKeys
from foramen.kernel.errors import ConflictError, InvalidRequestError, NotFoundError
from foramen.kernel.outbound_addresses import Network, parse_networks

OIDC, CAS = "oidc", "cas"
KINDS = (OIDC, CAS)
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. `issuer`: OpenID Connect issuer, or URL of the CAS server."""

    id: str
    kind: str
    issuer: str
    name_zh: str
    name_en: str
    client_id: str | None = None
    enabled: bool = True
    settings: ProviderSettings = field(default_factory=ProviderSettings)
    sealed_secret: str | None = field(default=None, repr=False)

    def name(self, language: str) -> str:
        """Name on the button of the sign-in page."""
        return self.name_zh if language == "zh" else self.name_en

    def networks(self) -> Sequence[Network]:
        """Networks that are not public and may be reached for this provider."""
        return parse_networks(",".join(self.settings.networks))

    def secret(self, keys: DataKeys) -> str | None:
        """Client secret, opened."""
        return keys.unseal(self.sealed_secret, provider_purpose(self.id)).decode() if self.sealed_secret else None


def seal_secret(keys: DataKeys, provider_id: str, secret: str) -> str:
    """Seal a client secret."""
    return keys.seal(secret.encode(), provider_purpose(provider_id))


def parse_settings(values: dict[str, Any]) -> ProviderSettings:
    """Read settings.

    Raises
    ------
    InvalidRequestError
        One of them cannot be accepted; the message names it.
    """
    try:
        return ProviderSettings.model_validate(values, strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidRequestError(f"The provider's {place} cannot be accepted: {first['msg']}") from error


_FIELDS = ("id", "kind", "issuer", "name_zh", "name_en", "client_id", "enabled", "settings", "sealed_secret")
_TABLE = tables.identity_provider
_COLUMNS = tuple(_TABLE.c[name] for name in _FIELDS)


def _provider(row: Any) -> Provider:
    values = dict(zip(_FIELDS, row, strict=True))
    return Provider(**{**values, "settings": parse_settings(values["settings"])})


def find_provider(connection: Connection, provider_id: str) -> Provider | None:
    """Return an enabled provider, or None."""
    row = connection.execute(select(*_COLUMNS).where(_TABLE.c.id == provider_id, _TABLE.c.enabled)).one_or_none()
    return _provider(row) if row else None


def list_providers(connection: Connection, *, enabled: bool = False) -> list[Provider]:
    """Return all providers, or those that are enabled, by id."""
    statement = select(*_COLUMNS).order_by(_TABLE.c.id)
    rows = connection.execute(statement.where(_TABLE.c.enabled) if enabled else statement)
    return [_provider(row) for row in rows]


def check_provider(connection: Connection, provider: Provider) -> None:
    """Refuse a provider that would be unsafe or could not work.

    Raises
    ------
    InvalidRequestError
        Id, name, issuer, client or a setting cannot be accepted.
    """
    settings = provider.settings
    if not _ID.fullmatch(provider.id) or provider.kind not in KINDS:
        raise InvalidRequestError("A provider has an id of 1 to 32 small letters, digits or -, and is oidc or cas")
    if not all(0 < len(name) <= _LONGEST_NAME for name in (provider.name_zh, provider.name_en)):
        raise InvalidRequestError(f"A provider has a Chinese and an English name of at most {_LONGEST_NAME} letters")
    check_web_uri(provider.issuer, "The issuer")
    if urlsplit(provider.issuer).query:
        raise InvalidRequestError("The issuer has no query")
    if provider.kind == OIDC and (not provider.client_id or "openid" not in settings.scope.split()):
        raise InvalidRequestError("An OpenID Connect provider needs a client id and the scope openid")
    if provider.kind == OIDC and (settings.token_auth == "none") != (provider.sealed_secret is None):  # noqa: S105
        raise InvalidRequestError("A client has a secret, or is public (token_auth none)")
    if not settings.algorithms:
        raise InvalidRequestError("At least one algorithm has to be allowed")
    for institution in (settings.institution, *(item.institution for item in settings.institutions)):
        known_institution(connection, institution)
    path = settings.ca_path()
    if path is not None and not path.is_file():
        raise InvalidRequestError("The file of certificate authorities is not there")


def save_provider(connection: Connection, provider: Provider) -> None:
    """Add a provider, or replace what is configured for it.

    Raises
    ------
    InvalidRequestError
        See `check_provider`.
    ConflictError
        Another provider has this issuer, or this provider had another issuer or kind.
    """
    check_provider(connection, provider)
    known = connection.execute(
        select(_TABLE.c.id, _TABLE.c.issuer, _TABLE.c.kind).where(
            (_TABLE.c.id == provider.id) | (_TABLE.c.issuer == provider.issuer)
        )
    ).all()
    if any(tuple(row) != (provider.id, provider.issuer, provider.kind) for row in known):
        raise ConflictError("Id and issuer of a provider belong together for good: remove the other one first")
    values = {name: getattr(provider, name) for name in _FIELDS if name not in ("id", "settings")}
    values["settings"] = provider.settings.model_dump(mode="json")
    statement = insert(_TABLE).values(id=provider.id, created_at=utc_now(), **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def set_enabled(connection: Connection, provider_id: str, *, enabled: bool) -> None:
    """Switch a provider on or off.

    Raises
    ------
    NotFoundError
        There is no such provider.
    """
    changed = connection.execute(update(_TABLE).where(_TABLE.c.id == provider_id).values(enabled=enabled))
    if changed.rowcount == 0:
        raise NotFoundError("There is no such identity provider")


def delete_provider(connection: Connection, provider_id: str) -> None:
    """Remove a provider; who is linked stays known, should it come back.

    Raises
    ------
    NotFoundError
        There is no such provider.
    """
    if connection.execute(delete(_TABLE).where(_TABLE.c.id == provider_id)).rowcount == 0:
        raise NotFoundError("There is no such identity provider")
