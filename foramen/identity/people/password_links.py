"""A link with which a person sets the first or a forgotten password: nobody else ever knows it.

One link an account, good once and for three days, kept as a digest; a newer one replaces it. It ends with every change
of the account's rights, and it does no more than its maker may do in the moment of its use.
OWASP Forgot Password Cheat Sheet (URL tokens); NIST SP 800-63B §4.2 (recovery with an issued code).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.federation.linking import signs_in_outside_only
from foramen.identity.opaque_tokens import digest, new_opaque_token
from foramen.identity.people import accounts
from foramen.identity.people.accounts import Account, find_account
from foramen.identity.rights.administration import MANAGE_ACCOUNTS, decide, note, require
from foramen.identity.rights.permissions import lock_account
from foramen.identity.security_event import REFUSED, SUCCESS, SecurityEvent
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
        The account is disabled, or an identity provider decides who signs in to it.
    """
    lock_account(connection, name)
    target = accounts.require_account(connection, name)
    require(connection, administrator, MANAGE_ACCOUNTS, target)
    if target.disabled:
        raise ConflictError("The account is disabled")
    if signs_in_outside_only(connection, name):
        raise ConflictError("The account signs in through an identity provider only")
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
    """Return whose link it is; None when it has run out, was used, or may not be used now (`_still_good`)."""
    found = _find(connection, token)
    account = find_account(connection, found.account) if found else None
    return account if found and account and _still_good(connection, account, found.made_by) else None


def use_link(connection: Connection, token: str, password_hash: str, address: str | None) -> Account | None:
    """Set the password with a link, which is used up; all sessions and tokens of the account end, and a lock.

    Returns
    -------
    The account; None when the link has run out, was used meanwhile, or its maker may not do this any more.
    """
    known = _find(connection, token)
    if known is None:
        return None
    lock_account(connection, known.account)  # a change of its rights ends first, and the link with it
    found, account = _find(connection, token), find_account(connection, known.account)
    if found is None or account is None:
        return None
    connection.execute(delete(tables.password_link).where(_LINK.account == account.name))
    if not _still_good(connection, account, found.made_by):
        record(connection, replace(_event(account, address), outcome=REFUSED))
        return None
    accounts.set_password_hash(connection, account.name, password_hash, None)
    accounts.sign_in_succeeded(connection, account.name)  # a lock of passwords is over; one of codes is not
    record(connection, _event(account, address))
    return account


def _find(connection: Connection, token: str) -> Row[str, str] | None:
    return connection.execute(
        select(_LINK.account, _LINK.made_by).where(_LINK.token_digest == digest(token), _LINK.expires_at > utc_now())
    ).one_or_none()


def _still_good(connection: Connection, account: Account, made_by: str) -> bool:
    """Whether the maker may do now what the link does, to the account as it is now: rights of both may have changed."""
    maker = find_account(connection, made_by)
    if maker is None or signs_in_outside_only(connection, account.name):
        return False
    return not decide(connection, maker, MANAGE_ACCOUNTS, account)


def _event(account: Account, address: str | None) -> SecurityEvent:
    return SecurityEvent(
        "password-change", SUCCESS, account=account.name, fhir_user=account.fhir_user, address=address, reason="link"
    )
