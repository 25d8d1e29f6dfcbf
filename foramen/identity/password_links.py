"""A link with which a person sets the first or a forgotten password: nobody else ever knows it.

One link an account, good once and for three days, kept as a digest; a newer one replaces it.
OWASP Forgot Password Cheat Sheet (URL tokens); NIST SP 800-63B §4.2 (recovery with an issued code).
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import accounts, tables
from foramen.identity.accounts import Account, find_account
from foramen.identity.administration import MANAGE_ACCOUNTS, note, require
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.opaque_tokens import digest, new_opaque_token
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.errors import ConflictError

LIFETIME = timedelta(days=3)
_LINK = tables.password_link.c


def make_link(connection: Connection, administrator: Account, name: str) -> str:
    """Return the secret of a new link of an account; the old password goes on working until the link is used.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such account.
    ConflictError
        The account is disabled.
    """
    target = accounts.require_account(connection, name)
    require(connection, administrator, MANAGE_ACCOUNTS, target)
    if target.disabled:
        raise ConflictError("The account is disabled")
    token, now = new_opaque_token(), utc_now()
    values = {
        "token_digest": digest(token),
        "made_by": administrator.name,
        "created_at": now,
        "expires_at": now + LIFETIME,
    }
    statement = insert(tables.password_link).values(account=name, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["account"], set_=values))
    note(connection, administrator, target, "link made", "password-link")
    return token


def account_of_link(connection: Connection, token: str) -> Account | None:
    """Return whose link it is; None when it has run out, was used, or its account may not act."""
    name = connection.execute(
        select(_LINK.account).where(_LINK.token_digest == digest(token), _LINK.expires_at > utc_now())
    ).scalar_one_or_none()
    return find_account(connection, name) if name else None


def use_link(connection: Connection, token: str, password_hash: str, address: str | None) -> Account | None:
    """Set the password with a link, which is used up; all sessions and tokens of the account end, and a lock.

    Returns
    -------
    The account; None when the link has run out or was used meanwhile.
    """
    name = connection.execute(
        delete(tables.password_link)
        .where(_LINK.token_digest == digest(token), _LINK.expires_at > utc_now())
        .returning(_LINK.account)
    ).scalar_one_or_none()
    account = find_account(connection, name) if name else None
    if account is None:
        return None
    accounts.set_password_hash(connection, account.name, password_hash, None)
    accounts.sign_in_succeeded(connection, account.name)  # a lock of passwords is over; one of codes is not
    event = SecurityEvent(
        "password-change", SUCCESS, account=account.name, fhir_user=account.fhir_user, address=address, reason="link"
    )
    record(connection, event)
    return account
