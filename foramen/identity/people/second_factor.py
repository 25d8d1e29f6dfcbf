"""Who needs a second factor, who has one, and the check of a code of either kind, with its own lock.

NIST SP 800-63B §2.2 (AAL2). A passkey with user verification is two factors by itself (§3.1.7).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from sqlalchemy import ColumnElement, Connection, Table, delete, select, update

from foramen.identity import tables
from foramen.identity.people import recovery_codes, totp
from foramen.identity.people.accounts import end_access
from foramen.identity.people.lockout import Lock, after_attempt
from foramen.identity.people.passkeys import Passkey, list_passkeys
from foramen.identity.people.sessions import RECOVERY_CODE, TOTP
from foramen.identity.people.totp import TotpDevice
from foramen.identity.rights.roles import ROLES
from foramen.identity.sealing import DataKeys
from foramen.kernel.errors import InvalidRequestError, NotFoundError
from foramen.kernel.settings import Settings


@lru_cache(maxsize=8)
def _roles(text: str) -> frozenset[str]:
    roles = frozenset(role.strip() for role in text.split(",") if role.strip())
    if not roles <= set(ROLES):  # a slip of the pen must not switch the second factor off
        raise InvalidRequestError(f"FORAMEN_SECOND_FACTOR_ROLES holds roles of {', '.join(ROLES)}, separated by commas")
    return roles


def second_factor_roles(settings: Settings) -> frozenset[str]:
    """Return the roles that need a second factor.

    Raises
    ------
    InvalidRequestError
        The setting names a role that does not exist.
    """
    return _roles(settings.second_factor_roles)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The second factors of an account."""

    devices: tuple[TotpDevice, ...] = ()
    passkeys: tuple[Passkey, ...] = ()
    codes_left: int = 0

    @property
    def number(self) -> int:
        """How many second factors there are; recovery codes stand in for one and are none themselves."""
        return len(self.devices) + len(self.passkeys)


def enrolled(connection: Connection, account: str) -> Enrolled:
    """Return what an account has enrolled."""
    return Enrolled(
        tuple(totp.list_devices(connection, account)),
        tuple(list_passkeys(connection, account)),
        recovery_codes.codes_left(connection, account),
    )


def begin_code(connection: Connection, account: str, now: datetime) -> bool:
    """Count one attempt before the code is looked at; False while codes of this account are locked.

    The fifth failure locks codes, longer each time (`lockout`): a thief of the password has five guesses of a million.
    """
    column = tables.account.c
    row = connection.execute(
        select(column.code_failures, column.codes_locked_until, column.code_locks)
        .where(column.name == account, column.disabled.is_(False))
        .with_for_update(key_share=True)
    ).one_or_none()
    lock = Lock(*row) if row else Lock()
    if row is None or lock.holds(now):
        return False
    counted = after_attempt(lock, now)
    connection.execute(
        update(tables.account)
        .where(column.name == account)
        .values(code_failures=counted.attempts, codes_locked_until=counted.until, code_locks=counted.locks)
    )
    return True


def code_succeeded(connection: Connection, account: str) -> None:
    """Forget failed codes."""
    connection.execute(
        update(tables.account)
        .where(tables.account.c.name == account)
        .values(code_failures=0, codes_locked_until=None, code_locks=0)
    )


def use_any_code(connection: Connection, keys: DataKeys, account: str, code: str, now: datetime) -> str | None:
    """Check a code of an authenticator app or a recovery code, used up by it; returns the factor it proves."""
    if not begin_code(connection, account, now):
        return None
    factor = None
    if totp.use_code(connection, keys, account, code, now):
        factor = TOTP
    elif recovery_codes.use_code(connection, account, code, now):
        factor = RECOVERY_CODE
    if factor is not None:
        code_succeeded(connection, account)
    return factor


def rename_factor(connection: Connection, account: str, kind: str, factor: str, name: str) -> bool:
    """Give an authenticator app or a passkey of the account another name; returns whether there is one."""
    table, condition = _one(account, kind, factor)
    return connection.execute(update(table).where(*condition).values(name=name)).rowcount == 1


def remove_factor(connection: Connection, account: str, kind: str, factor: str) -> bool:
    """Remove an authenticator app or a passkey; with the last one the recovery codes go."""
    table, condition = _one(account, kind, factor)
    removed = connection.execute(delete(table).where(*condition)).rowcount == 1
    if enrolled(connection, account).number == 0:
        connection.execute(delete(tables.recovery_code).where(tables.recovery_code.c.account == account))
    return removed


def _one(account: str, kind: str, factor: str) -> tuple[Table, tuple[ColumnElement[bool], ...]]:
    if kind == "passkey":
        return tables.passkey, (tables.passkey.c.account == account, tables.passkey.c.credential_id == factor)
    try:
        device = uuid.UUID(factor)
    except ValueError:
        device = uuid.UUID(int=0)
    return tables.totp_device, (tables.totp_device.c.account == account, tables.totp_device.c.id == device)


def reset_second_factor(connection: Connection, account: str) -> None:
    """Remove all second factors of an account and end its access: for a lost or stolen device.

    Raises
    ------
    NotFoundError
        There is no such account.
    """
    known = connection.execute(select(tables.account.c.name).where(tables.account.c.name == account)).scalar()
    if known is None:
        raise NotFoundError("There is no such account")
    for table in (tables.totp_device, tables.passkey, tables.recovery_code):
        connection.execute(delete(table).where(table.c.account == account))
    code_succeeded(connection, account)
    end_access(connection, account)
