"""Accounts of people: role, institution, link to their Practitioner or Patient, and the lock after failed sign-ins.

OWASP Authentication Cheat Sheet (lock-out, same answer for unknown names).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.logout_notices import tell_apps
from foramen.identity.people.known_devices import count_here, forget_failures, lock_here
from foramen.identity.people.lockout import MAX_FAILED_ATTEMPTS, Lock, after_attempt
from foramen.identity.people.password_policy import check_password
from foramen.identity.people.passwords import hash_password
from foramen.identity.rights.institutions import known_institution
from foramen.identity.rights.roles import PATIENT, ROLES
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.errors import InvalidRequestError, NotFoundError

__all__ = ["MAX_FAILED_ATTEMPTS", "Account", "begin_sign_in", "find_account", "save_account"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class Account:
    """One account; `practitioner` and `patient` are logical ids."""

    name: str
    role: str
    practitioner: str | None = None
    patient: str | None = None
    institution: str | None = None
    disabled: bool = False

    @property
    def fhir_user(self) -> str | None:
        """`Practitioner/id` or `Patient/id`: who this account is in the record."""
        if self.practitioner:
            return f"Practitioner/{self.practitioner}"
        return f"Patient/{self.patient}" if self.patient else None


ACCOUNT_COLUMNS = (
    tables.account.c.name,
    tables.account.c.role,
    tables.account.c.practitioner,
    tables.account.c.patient,
    tables.account.c.institution,
    tables.account.c.disabled,
)


_ACTIVE = select(*ACCOUNT_COLUMNS).where(
    tables.account.c.name == bindparam("wanted"), tables.account.c.disabled.is_(False)
)
_ACTIVE_LOCKED = _ACTIVE.with_for_update(read=True, key_share=True)


def find_account(connection: Connection, name: str, *, lock: bool = False) -> Account | None:
    """Return an account that may act, or None; a disabled one is None too.

    With `lock` changes of its rights wait until this transaction has ended.
    """
    row = connection.execute(_ACTIVE_LOCKED if lock else _ACTIVE, {"wanted": name}).one_or_none()
    return Account(*row) if row else None


def any_account(connection: Connection, name: str) -> Account | None:
    """Return an account, also one that is disabled."""
    row = connection.execute(select(*ACCOUNT_COLUMNS).where(tables.account.c.name == name)).one_or_none()
    return Account(*row) if row else None


def require_account(connection: Connection, name: str) -> Account:
    """Return an account, also one that is disabled.

    Raises
    ------
    NotFoundError
        There is no such account.
    """
    found = any_account(connection, name)
    if found is None:
        raise NotFoundError("There is no such account")
    return found


def list_accounts(connection: Connection) -> list[Account]:
    """Return all accounts, by name."""
    return [Account(*row) for row in connection.execute(select(*ACCOUNT_COLUMNS).order_by(tables.account.c.name))]


def logical_id(reference: str | None, kind: str) -> str | None:
    """Take the logical id out of `id` or `Kind/id`."""
    if not reference:
        return None
    logical_id = reference.removeprefix(f"{kind}/")
    if not _LOGICAL_ID.fullmatch(logical_id):
        raise InvalidRequestError(f"{kind} is named by its logical id")
    return logical_id


def save_account(
    connection: Connection,
    name: str,
    password: str,
    role: str,
    *,
    practitioner: str | None = None,
    patient: str | None = None,
    institution: str | None = None,
    new_holder: bool = False,
    password_hash: str | None = None,
) -> Account:
    """Create an account or overwrite it, with a new password; whatever access the account had ends.

    Second factors stay: whoever sets a password is not for that the person who holds them. But when the account was
    disabled, or comes to stand for another Practitioner or Patient, its name passes to somebody else: then what the
    former holder left — factors, consents, single permissions, loans — goes.

    Parameters
    ----------
    new_holder : the name passes to somebody else, whatever the above says
    password_hash : made before, of a password nobody knows; then `password` is not looked at

    Raises
    ------
    InvalidRequestError
        Name, role, reference or password cannot be accepted.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError("An account name has 1 to 64 letters, digits or ._@-")
    if role not in ROLES:
        raise InvalidRequestError(f"A role is one of {', '.join(ROLES)}")
    if role == PATIENT and not patient:
        raise InvalidRequestError("An account of role patient needs its Patient")
    if password_hash is None:  # else it was made before, of a password nobody knows
        check_password(password, about=(name, institution))
    now, person = utc_now(), (logical_id(practitioner, "Practitioner"), logical_id(patient, "Patient"))
    former = connection.execute(
        select(*ACCOUNT_COLUMNS).where(tables.account.c.name == name).with_for_update()
    ).one_or_none()
    passes_on = former is not None and (
        new_holder or former.disabled or (former.practitioner, former.patient) != person
    )
    values = {
        "password_hash": hash_password(password) if password_hash is None else password_hash,
        "password_changed_at": now,
        "role": role,
        "practitioner": person[0],
        "patient": person[1],
        "institution": known_institution(connection, institution),
        "disabled": False,
        "failed_attempts": 0,
        "locked_until": None,
        "locks": 0,
    }
    statement = insert(tables.account).values(name=name, created_at=now, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
    if passes_on:
        forget_holder(connection, name, now)
    end_access(connection, name)  # whoever knew the old password loses what it gave
    account = find_account(connection, name)
    if account is None:  # cannot be: it was written in this transaction
        raise NotFoundError("The account is gone")
    return account


def forget_holder(connection: Connection, name: str, now: datetime) -> None:
    """Take away what belongs to the person behind an account and not to its name."""
    account, change, loan = tables.account.c, tables.permission_change.c, tables.delegation.c
    for table in (
        *(tables.totp_device, tables.passkey, tables.recovery_code, tables.passkey_challenge),
        *(tables.consent, tables.known_device, tables.launch, tables.federated_account),
        *(tables.federated_account, tables.password_link),
    ):
        connection.execute(delete(table).where(table.c.account == name))
    connection.execute(
        update(tables.permission_change).where(change.account == name, change.ended_at.is_(None)).values(ended_at=now)
    )
    connection.execute(
        update(tables.delegation)
        .where(or_(loan.lender == name, loan.borrower == name), loan.ended_at.is_(None))
        .values(ended_at=now)
    )
    fresh = {"user_handle": None, "code_failures": 0, "codes_locked_until": None, "code_locks": 0}
    connection.execute(update(tables.account).where(account.name == name).values(**fresh))
    said = "the name passes to somebody else: factors, consents, single permissions and loans end"
    record(connection, SecurityEvent("account", SUCCESS, concerns=name, reason=said))


def ensure_user(
    database_url: str,
    name: str,
    password: str,
    role: str,
    practitioner: str | None = None,
    institution: str | None = None,
    *,
    patient: str | None = None,
) -> None:
    """Create the account `name`, or set its password and role; harmless to repeat."""
    with transaction(database_url) as connection:
        save_account(
            connection, name, password, role, practitioner=practitioner, patient=patient, institution=institution
        )


def disable_account(connection: Connection, name: str) -> None:
    """Disable an account: its sessions end and its refresh tokens stop.

    Raises
    ------
    NotFoundError
        There is no such account.
    """
    from foramen.identity.rights.permissions import end_exceeding, lock_account  # which ask for accounts themselves

    lock_account(connection, name)  # before its sessions: everybody locks the two in this order
    _change(connection, name, disabled=True)
    end_access(connection, name)
    end_exceeding(connection, name)  # what the account lends ends, too


def is_locked(connection: Connection, name: str, now: datetime) -> bool:
    """Whether failed passwords or codes keep an account locked now, be it in one of its own browsers only."""
    column, known = tables.account.c, tables.known_device.c
    row = connection.execute(select(column.locked_until, column.codes_locked_until).where(column.name == name)).one()
    here = connection.execute(select(known.locked_until).where(known.account == name)).scalars()
    return any(until is not None and until > now for until in (*row, *here))


def enable_account(connection: Connection, name: str) -> None:
    """Let a disabled account act again.

    Raises
    ------
    NotFoundError
        There is no such account.
    """
    _change(connection, name, disabled=False)


def unlock_account(connection: Connection, name: str) -> None:
    """End the lock that failed passwords or codes have put on an account, also in its own browsers.

    Raises
    ------
    NotFoundError
        There is no such account.
    """
    fresh = {"failed_attempts": 0, "locked_until": None, "locks": 0}
    codes = {"code_failures": 0, "codes_locked_until": None, "code_locks": 0}
    _change(connection, name, **fresh, **codes)
    forget_failures(connection, name)


def set_password_hash(connection: Connection, name: str, password_hash: str, kept_session: str | None) -> None:
    """Change a password that the policy accepted; all sessions and tokens end but those of `kept_session` (a digest).

    The hash is made before: it takes long, and a transaction should not.
    """
    _change(connection, name, password_hash=password_hash, password_changed_at=utc_now())
    connection.execute(delete(tables.known_device).where(tables.known_device.c.account == name))
    end_access(connection, name, kept_session)


def _change(connection: Connection, name: str, **values: object) -> None:
    changed = connection.execute(update(tables.account).where(tables.account.c.name == name).values(**values))
    if changed.rowcount == 0:
        raise NotFoundError("There is no such account")


def end_access(connection: Connection, name: str, kept_session: str | None = None) -> None:
    """End an account's sessions, sign-ins under way, refresh tokens and access tokens, but those of `kept_session`.

    So does a link for a new password: it was made for the account as it was.
    """
    now, family, session = utc_now(), tables.token_family.c, tables.session.c
    ended = (session.account == name) & session.session_digest.is_distinct_from(kept_session)
    connection.execute(select(session.account).where(ended).with_for_update())  # waits for what is being issued
    opened = tables.app_session.c
    tell_apps(connection, (opened.account == name) & opened.session_digest.is_distinct_from(kept_session), now)
    for table in (tables.partial_sign_in, tables.password_link):
        connection.execute(delete(table).where(table.c.account == name))
    connection.execute(delete(tables.session).where(ended))
    others = (family.account == name) & family.revoked_at.is_(None)
    if kept_session is not None:
        others &= family.session_digest.is_distinct_from(kept_session)
    families = connection.execute(
        update(tables.token_family).where(others).values(revoked_at=now).returning(family.family)
    ).scalars()
    connection.execute(
        update(tables.access_token)
        .where(tables.access_token.c.family.in_(families.all()), tables.access_token.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """What is needed to check a password; `password_hash` is None where no password can be right.

    `device`: the cookie of the browser the attempt was counted in; None: it was counted for the account.
    """

    known: bool
    password_hash: str | None
    device: str | None = None


def begin_sign_in(connection: Connection, name: str, device: str | None, now: datetime) -> SignInAttempt:
    """Count one attempt before the password is looked at, so that attempts in parallel cannot pass the limit.

    The fifth failure locks, longer each time (`lockout`): in a browser that the account is known in (`device`, its
    device cookie) there alone, so that guesses of strangers never keep its person out; else the account for all other
    browsers. Known and unknown, disabled and locked names cost the same statements.
    """
    column = tables.account.c
    row = connection.execute(
        select(column.failed_attempts, column.locked_until, column.locks, column.password_hash, column.disabled)
        .where(column.name == name)
        .with_for_update(key_share=True)
    ).one_or_none()
    everywhere = Lock(row.failed_attempts, row.locked_until, row.locks) if row else Lock()
    here = lock_here(connection, device, name, now)
    lock = everywhere if here is None else here
    open_ = row is not None and not row.disabled and not lock.holds(now)
    counted = after_attempt(lock, now) if open_ else lock
    _count(connection, name, counted if here is None else everywhere)
    count_here(connection, device, name, Lock() if here is None else counted)
    return SignInAttempt(
        row is not None,
        row.password_hash if row is not None and open_ else None,
        None if here is None else device,
    )


def sign_in_succeeded(
    connection: Connection, name: str, device: str | None = None, password_hash: str | None = None
) -> Account | None:
    """Forget the failed attempts and return the account, unless it was disabled meanwhile, or its password changed.

    The account's row is held: a change of the password is waited for, or waits and ends the session that comes of this.

    Parameters
    ----------
    device : `SignInAttempt.device`; a success in a known browser leaves a lock that strangers have put on the account
    password_hash : `SignInAttempt.password_hash`, which the password was found to be right by; None: it was not asked
    """
    column = tables.account.c
    row = connection.execute(
        select(*ACCOUNT_COLUMNS, column.password_hash).where(column.name == name).with_for_update(key_share=True)
    ).one_or_none()
    if row is None or row.disabled or (password_hash is not None and row.password_hash != password_hash):
        return None
    if device is None:
        _count(connection, name, Lock())
    else:
        count_here(connection, device, name, Lock())
    return Account(*row[:-1])


def _count(connection: Connection, name: str, lock: Lock) -> None:
    connection.execute(
        update(tables.account)
        .where(tables.account.c.name == name)
        .values(failed_attempts=lock.attempts, locked_until=lock.until, locks=lock.locks)
    )
