"""Lists of accounts for administrators: whose they may see is a condition of the query, before paging and counting."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, true

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.people.accounts import Account
from foramen.identity.rights.administration import MANAGE_ACCOUNTS, reach

ACTIVE, LOCKED, DISABLED = "active", "locked", "disabled"
STATES = (ACTIVE, LOCKED, DISABLED)
_ACCOUNT, _KNOWN = tables.account.c, tables.known_device.c


@dataclass(frozen=True, slots=True)
class ListedAccount:
    """An account as a list shows it; `locked_until`: failed passwords or codes lock it until then."""

    account: Account
    created_at: datetime
    locked_until: datetime | None

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if self.account.disabled:
            return DISABLED
        return LOCKED if self.locked_until else ACTIVE


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """What is looked for; an empty part asks nothing. `name` is a part of the account's name, in any case."""

    name: str = ""
    role: str = ""
    institution: str = ""
    state: str = ""


def search_accounts(
    connection: Connection, administrator: Account, wanted: AccountFilter, *, offset: int, limit: int
) -> tuple[list[ListedAccount], int]:
    """Return a part of the accounts found, by name, and how many there are in all.

    Raises
    ------
    ForbiddenError
        The administrator may not manage accounts.
    """
    now = utc_now()
    condition = and_(
        reach(connection, administrator, MANAGE_ACCOUNTS).condition(_ACCOUNT.institution), *_conditions(wanted, now)
    )
    total = connection.execute(select(func.count()).select_from(tables.account).where(condition)).scalar_one()
    rows = connection.execute(
        select(*_columns(now)).where(condition).order_by(_ACCOUNT.name).offset(offset).limit(limit)
    )
    return [_listed(row) for row in rows], total


def listed_account(connection: Connection, account: Account) -> ListedAccount:
    """Return an account that one may see (`administration.visible_account`) as a list shows it."""
    row = connection.execute(select(*_columns(utc_now())).where(_ACCOUNT.name == account.name)).one()
    return _listed(row)


def _columns(now: datetime) -> tuple[ColumnElement[Any], ...]:
    names = ("name", "role", "practitioner", "patient", "institution", "disabled", "created_at")
    here = select(func.max(_KNOWN.locked_until)).where(_KNOWN.account == _ACCOUNT.name).scalar_subquery()
    until = func.greatest(_ACCOUNT.locked_until, _ACCOUNT.codes_locked_until, here)
    return (*(_ACCOUNT[name] for name in names), func.nullif(func.greatest(until, now), now))


def _listed(row: Any) -> ListedAccount:
    return ListedAccount(Account(*row[:6]), row[6], row[7])


def is_locked_at(now: datetime) -> ColumnElement[bool]:
    """Condition: failed passwords or codes keep the account locked, be it in one of its own browsers only."""
    return or_(
        func.coalesce(_ACCOUNT.locked_until > now, False),
        func.coalesce(_ACCOUNT.codes_locked_until > now, False),
        exists().where(_KNOWN.account == _ACCOUNT.name, _KNOWN.locked_until > now),
    )


def _conditions(wanted: AccountFilter, now: datetime) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [true()]
    if wanted.name:
        found.append(_ACCOUNT.name.icontains(wanted.name, autoescape=True))
    if wanted.role:
        found.append(_ACCOUNT.role == wanted.role)
    if wanted.institution:
        found.append(_ACCOUNT.institution == wanted.institution)
    if wanted.state == DISABLED:
        found.append(_ACCOUNT.disabled)
    elif wanted.state:
        locked = is_locked_at(now)
        found += [~_ACCOUNT.disabled, locked if wanted.state == LOCKED else ~locked]
    return found
