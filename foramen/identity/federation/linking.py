"""Which account somebody out there has here: found by issuer and subject, made at the first sign-in, kept in step.

OpenID Connect Core §5.7 (never by name or mail); an account is only ever linked by whoever is signed in to it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import Connection, delete, select, text, update

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.federation.outside_identity import OutsideIdentity, values_of
from foramen.identity.federation.providers import Provider
from foramen.identity.federation.role_mapping import Mapped, mapped
from foramen.identity.opaque_tokens import new_opaque_token
from foramen.identity.people.accounts import Account, any_account, end_access
from foramen.identity.people.passwords import hash_password
from foramen.identity.rights.permissions import end_exceeding, lock_account
from foramen.identity.security_event import SUCCESS, SecurityEvent

LINKED, UNLINKED, CREATED, FOLLOWED = "identity-linked", "identity-unlinked", "account-created", "account-followed"
NO_ACCOUNT, NO_ROLE, DISABLED = "no_account", "no_role", "disabled"
_TABLE = tables.federated_account
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}")


@dataclass(frozen=True, slots=True)
class NotHere:
    """Why somebody who proved who they are out there cannot act here."""

    reason: str
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """One identity of an account."""

    issuer: str
    subject: str
    managed: bool
    linked_at: datetime
    last_sign_in_at: datetime | None


def hold(connection: Connection, issuer: str, subject: str) -> None:
    """Let sign-ins of one subject wait for each other, and all of an issuer for a sign-out that is being told."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:issuer, 80))"), {"issuer": f"issuer {issuer}"}
    )
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 80))"), {"subject": f"{issuer} {subject}"}
    )


def account_of(
    connection: Connection, provider: Provider, found: OutsideIdentity, now: datetime, address: str | None
) -> Account | NotHere:
    """Return the account of somebody a provider vouches for, made or brought into step; the caller holds `hold`.

    Who has lost their last role keeps nothing: sessions, refresh and access tokens of the account end.
    """
    row = connection.execute(
        select(_TABLE.c.account, _TABLE.c.managed).where(
            _TABLE.c.issuer == found.issuer, _TABLE.c.subject == found.subject
        )
    ).one_or_none()
    known = any_account(connection, row.account) if row else None
    if row is not None and known is not None and known.disabled:
        return NotHere(DISABLED, known.name)
    if row is not None and known is not None and not row.managed:
        account: Account | NotHere = known
    else:
        now_is = mapped(provider.settings, found.claims)
        if row is None and not provider.settings.create_accounts:
            return NotHere(NO_ACCOUNT)
        if now_is is None:
            if known is not None:
                end_access(connection, known.name)
            return NotHere(NO_ROLE, known.name if known else None)
        account = _created(connection, provider, found, now_is, now, address) if known is None else known
        if known is not None:
            account = _followed(connection, known, now_is, address)
    connection.execute(
        update(_TABLE)
        .where(_TABLE.c.issuer == found.issuer, _TABLE.c.subject == found.subject)
        .values(last_sign_in_at=now)
    )
    return account


@cache
def unusable_hash() -> str:
    """Hash of a password nobody knows: checking it takes as long as any other, and never fits."""
    return hash_password(new_opaque_token())


def _created(
    connection: Connection,
    provider: Provider,
    found: OutsideIdentity,
    now_is: Mapped,
    now: datetime,
    address: str | None,
) -> Account:
    name = _free_name(connection, provider, found)
    values = {"role": now_is.role, "practitioner": now_is.practitioner, "institution": now_is.institution}
    connection.execute(
        tables.account.insert().values(
            name=name,
            password_hash=unusable_hash(),
            disabled=False,
            failed_attempts=0,
            code_failures=0,
            created_at=now,
            **values,
        )
    )
    connection.execute(
        _TABLE.insert().values(issuer=found.issuer, subject=found.subject, account=name, managed=True, linked_at=now)
    )
    said = f"{provider.id}: {now_is.role}"
    record(connection, SecurityEvent(CREATED, SUCCESS, account=name, address=address, reason=said))
    return Account(name, now_is.role, now_is.practitioner, None, now_is.institution)


def _free_name(connection: Connection, provider: Provider, found: OutsideIdentity) -> str:
    """Name a new account after the person's name out there and the provider; a name opens nothing, the subject does."""
    fingerprint = hashlib.sha256(f"{found.issuer}\0{found.subject}".encode()).hexdigest()
    wanted = next(iter(values_of(found.claims, provider.settings.name_claim)), "")
    if _NAME.fullmatch(wanted):
        name = f"{wanted}@{provider.id}"
        if any_account(connection, name) is None:
            return name
    return f"{fingerprint[:24]}@{provider.id}"


def _followed(connection: Connection, account: Account, now_is: Mapped, address: str | None) -> Account:
    """Bring an account into step with the groups of today; what it holds beyond its new rights ends."""
    lock_account(connection, account.name)
    values = {"role": now_is.role, "practitioner": now_is.practitioner, "institution": now_is.institution}
    was = {name: getattr(account, name) for name in values}
    changed = sorted(name for name in values if was[name] != values[name])
    if not changed:
        return account
    connection.execute(update(tables.account).where(tables.account.c.name == account.name).values(**values))
    said = f"role {account.role} → {now_is.role}" if "role" in changed else f"changed: {', '.join(changed)}"
    record(connection, SecurityEvent(FOLLOWED, SUCCESS, account=account.name, address=address, reason=said))
    if changed == ["role"]:
        end_exceeding(connection, account.name)
        connection.execute(delete(tables.password_link).where(tables.password_link.c.account == account.name))
    else:
        end_access(connection, account.name)  # tokens name the institution and the Practitioner of before
        end_exceeding(connection, account.name)
    return Account(account.name, now_is.role, now_is.practitioner, account.patient, now_is.institution)


def link(
    connection: Connection,
    provider: Provider,
    found: OutsideIdentity,
    account: Account,
    now: datetime,
    address: str | None,
) -> bool:
    """Link an identity to the account of whoever is signed in; False when it, or the account, is taken already."""
    taken = connection.execute(
        select(_TABLE.c.account).where(
            _TABLE.c.issuer == found.issuer, (_TABLE.c.subject == found.subject) | (_TABLE.c.account == account.name)
        )
    ).first()
    if taken is not None:
        return False
    connection.execute(
        _TABLE.insert().values(
            issuer=found.issuer,
            subject=found.subject,
            account=account.name,
            managed=False,  # its role was given here and stays so
            linked_at=now,
        )
    )
    record(connection, SecurityEvent(LINKED, SUCCESS, account=account.name, address=address, reason=provider.id))
    return True


def unlink(connection: Connection, account: str, provider: Provider, address: str | None) -> bool:
    """End the link of an account that was not made by the provider; its sessions from there go on to their end."""
    ended = connection.execute(
        delete(_TABLE).where(
            _TABLE.c.account == account, _TABLE.c.issuer == provider.issuer, _TABLE.c.managed.is_(False)
        )
    )
    if ended.rowcount:
        record(connection, SecurityEvent(UNLINKED, SUCCESS, account=account, address=address, reason=provider.id))
    return ended.rowcount == 1


def links_of(connection: Connection, account: str) -> dict[str, Link]:
    """Return the identities of an account by issuer."""
    columns = (_TABLE.c.issuer, _TABLE.c.subject, _TABLE.c.managed, _TABLE.c.linked_at, _TABLE.c.last_sign_in_at)
    rows = connection.execute(select(*columns).where(_TABLE.c.account == account))
    return {row.issuer: Link(*row) for row in rows}


def signs_in_outside_only(connection: Connection, account: str) -> bool:
    """Whether a provider decides what the account may do: it must be asked at each sign-in, or leavers would stay."""
    found = connection.execute(select(_TABLE.c.account).where(_TABLE.c.account == account, _TABLE.c.managed)).first()
    return found is not None
