"""What a person agreed to let an app do: remembered until the app asks for more, or until it is withdrawn.

The word is OAuth's; a patient's privacy Consent is a FHIR resource (`fhir_server/access/consent.py`).
OpenID Connect Core §3.1.2.4, RFC 6749 §10.2
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.scopes import covers, within
from foramen.identity.token_families import revoke_family


@dataclass(frozen=True, slots=True)
class AgreedConsent:
    """What was agreed with one app: the scopes that it asked for then, and those that the person left it."""

    client_id: str
    asked: str
    agreed: str
    agreed_at: datetime


def remember_consent(connection: Connection, account: str, client_id: str, asked: str, agreed: str) -> None:
    """Remember what was agreed; it takes the place of what was agreed before."""
    values = {"asked": asked, "agreed": agreed, "agreed_at": utc_now()}
    statement = insert(tables.consent).values(account=account, client_id=client_id, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["account", "client_id"], set_=values))


def remembered_scope(connection: Connection, account: str, client_id: str, requested: str) -> str | None:
    """Return what of the requested scopes was agreed to, or None when the person has to be asked.

    That is so when nothing was agreed, when the app asks for more than it did then, and when nothing would be left.
    """
    columns = tables.consent.c
    row = connection.execute(
        select(columns.asked, columns.agreed).where(columns.account == account, columns.client_id == client_id)
    ).one_or_none()
    if row is None or not covers(row.asked, requested):
        return None
    return within(requested, row.agreed) or None


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
    family = tables.token_family.c
    live = connection.execute(
        select(family.family).where(
            family.account == account, family.client_id == client_id, family.revoked_at.is_(None)
        )
    ).scalars()
    families = live.all()
    for found in families:
        revoke_family(connection, found)
    return bool(forgotten or families)
