"""What a person agreed to let an app do: remembered until the app asks for more, becomes another one, or is withdrawn.

The word is OAuth's; a patient's privacy Consent is a FHIR resource (`fhir_server/access/consent.py`).
OpenID Connect Core §3.1.2.4, RFC 6749 §10.2, RFC 8252 §8.6
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.oauth.client_checks import LOOPBACK, PUBLIC
from foramen.identity.oauth.clients import Client, find_client
from foramen.identity.oauth.scopes import LAUNCH_SCOPES, covers, within
from foramen.identity.oauth.token_families import revoke_family
from foramen.identity.opaque_tokens import digest


@dataclass(frozen=True, slots=True)
class AgreedConsent:
    """What was agreed with one app: the scopes that it asked for then, and those that the person left it."""

    client_id: str
    asked: str
    agreed: str
    agreed_at: datetime


def client_digest(client: Client) -> str:
    """Name what makes an app the one that a person agreed to: where it has people sent, and how it proves itself."""
    identity = {
        "redirect_uris": sorted(client.redirect_uris),
        "method": client.auth_method,
        "secret": client.secret_hash,
        "jwks": client.jwks,
        "jwks_uri": client.jwks_uri,
    }
    return digest(json.dumps(identity, sort_keys=True))


def remember_consent(connection: Connection, account: str, client_id: str, asked: str, agreed: str) -> None:
    """Remember what was agreed; it takes the place of what was agreed before, and older tokens that do more end."""
    client = find_client(connection, client_id)
    values = {
        "asked": asked,
        "agreed": agreed,
        "agreed_at": utc_now(),
        "client_digest": client_digest(client) if client else None,
    }
    statement = insert(tables.consent).values(account=account, client_id=client_id, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["account", "client_id"], set_=values))
    for family, scope in _live_families(connection, account, client_id):
        rights = " ".join(text for text in scope.split() if text not in LAUNCH_SCOPES)
        if not covers(agreed, rights):
            revoke_family(connection, family)


def _live_families(connection: Connection, account: str, client_id: str) -> list[tuple[uuid.UUID, str]]:
    family = tables.token_family.c
    rows = connection.execute(
        select(family.family, family.scope).where(
            family.account == account, family.client_id == client_id, family.revoked_at.is_(None)
        )
    )
    return [(row.family, row.scope) for row in rows]


def remembered_scope(connection: Connection, account: str, client_id: str, requested: str) -> str | None:
    """Return what of the requested scopes was agreed to, or None when the person has to be asked.

    That is so when nothing was agreed, when the app asks for more than it did then, when its redirect URIs or keys are
    not those of then, and when nothing would be left.
    """
    columns = tables.consent.c
    row = connection.execute(
        select(columns.asked, columns.agreed, columns.client_digest).where(
            columns.account == account, columns.client_id == client_id
        )
    ).one_or_none()
    client = find_client(connection, client_id)
    if row is None or client is None or row.client_digest != client_digest(client):
        return None
    if not covers(row.asked, requested):
        return None
    return within(requested, row.agreed) or None


def is_impersonable(client: Client, redirect_uri: str) -> bool:
    """Whether any program on the person's machine can take the app's place: no secret, and no address of its own.

    What was agreed with such an app is never taken for granted (RFC 8252 §8.6, RFC 9700 §4.13.1).
    """
    parts = urlsplit(redirect_uri)
    return client.auth_method == PUBLIC and (parts.scheme != "https" or parts.hostname in LOOPBACK)


def consents_of(connection: Connection, account: str) -> list[AgreedConsent]:
    """Return what a person agreed to, by client id."""
    columns = tables.consent.c
    rows = connection.execute(
        select(columns.client_id, columns.asked, columns.agreed, columns.agreed_at)
        .where(columns.account == account)
        .order_by(columns.client_id)
    )
    return [AgreedConsent(*row) for row in rows]


def withdraw_consent(connection: Connection, account: str, client_id: str) -> bool:
    """Forget what a person agreed to with a client and end every token of the two; the caller records the event.

    Returns
    -------
    Whether there was anything to withdraw.
    """
    consent = tables.consent.c
    forgotten = connection.execute(
        delete(tables.consent).where(consent.account == account, consent.client_id == client_id)
    ).rowcount
    families = [family for family, _ in _live_families(connection, account, client_id)]
    for found in families:
        revoke_family(connection, found)
    return bool(forgotten or families)
