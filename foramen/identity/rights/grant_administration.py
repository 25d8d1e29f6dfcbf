"""Lists of single permissions and loans for administrators, and ending them.

Whose they see is a condition of the query, before paging; every step is asked of the policy.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, true, update

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.people import accounts
from foramen.identity.people.accounts import Account
from foramen.identity.rights.administration import GRANT_PERMISSIONS, decide, locked_account, note, reach, require
from foramen.identity.rights.delegations import Delegation, end_delegation
from foramen.identity.rights.permissions import WITHDRAW, PermissionChange, end_exceeding
from foramen.kernel.errors import NotFoundError

_CHANGE, _LOAN, _ACCOUNT = tables.permission_change.c, tables.delegation.c, tables.account.c
_CHANGE_COLUMNS = tuple(_CHANGE[name] for name in PermissionChange.__dataclass_fields__)
_LOAN_COLUMNS = tuple(_LOAN[name] for name in Delegation.__dataclass_fields__)


def search_changes(
    connection: Connection,
    administrator: Account,
    *,
    account: str = "",
    permission: str = "",
    before: datetime | None = None,
    offset: int,
    limit: int,
) -> tuple[list[PermissionChange], int]:
    """Return a part of the grants and withdrawals in force, newest first, and how many there are in all.

    Parameters
    ----------
    account, permission : part of the account's name; the permission; empty asks nothing
    before : only those that run out before this moment

    Raises
    ------
    ForbiddenError
        The administrator may not grant permissions.
    """
    within = reach(connection, administrator, GRANT_PERMISSIONS).condition(_ACCOUNT.institution)
    conditions = [within, _CHANGE.ended_at.is_(None), or_(_CHANGE.until.is_(None), _CHANGE.until > utc_now())]
    if account:
        conditions.append(_CHANGE.account.icontains(account, autoescape=True))
    if permission:
        conditions.append(_CHANGE.permission == permission)
    if before is not None:
        conditions.append(_CHANGE.until <= before)
    both = tables.permission_change.join(tables.account, _CHANGE.account == _ACCOUNT.name)
    total = connection.execute(select(func.count()).select_from(both).where(*conditions)).scalar_one()
    rows = connection.execute(
        select(*_CHANGE_COLUMNS)
        .select_from(both)
        .where(*conditions)
        .order_by(_CHANGE.created_at.desc(), _CHANGE.id)
        .offset(offset)
        .limit(limit)
    )
    return [PermissionChange(*row) for row in rows], total


def revert_change(connection: Connection, administrator: Account, name: str, permission: str, reason: str) -> str:
    """End what was decided on one permission of an account, so that its role alone counts again.

    To end a withdrawal is to give something: the policy is asked as for a grant.

    Returns
    -------
    What was ended: `permissions.GRANT` or `permissions.WITHDRAW`.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, there is no such account, or nothing is decided on the permission.
    """
    target = locked_account(connection, name)
    require(connection, administrator, GRANT_PERMISSIONS, target)
    effect = connection.execute(
        update(tables.permission_change)
        .where(_CHANGE.account == name, _CHANGE.permission == permission, _CHANGE.ended_at.is_(None))
        .values(ended_at=utc_now())
        .returning(_CHANGE.effect)
    ).scalar_one_or_none()
    if effect is None:
        raise NotFoundError("Nothing is decided on this permission")
    if effect == WITHDRAW:
        require(connection, administrator, GRANT_PERMISSIONS, target, permission)
    end_exceeding(connection, name)
    note(connection, administrator, target, f"{permission} as the role has it: {reason}", f"{effect}-ended")
    return str(effect)


def search_loans(
    connection: Connection, administrator: Account, *, account: str = "", ended: bool = False, offset: int, limit: int
) -> tuple[list[Delegation], int]:
    """Return a part of the loans, newest first, and how many there are in all.

    An administrator sees those whose lender or borrower is within reach.

    Parameters
    ----------
    account : part of the lender's or borrower's name; empty asks nothing
    ended : also those that are over

    Raises
    ------
    ForbiddenError
        The administrator may not grant permissions.
    """
    conditions: list[ColumnElement[bool]] = [_within(connection, administrator)]
    if account:
        conditions.append(
            or_(_LOAN.lender.icontains(account, autoescape=True), _LOAN.borrower.icontains(account, autoescape=True))
        )
    if not ended:
        conditions.append(and_(_LOAN.ended_at.is_(None), _LOAN.until > utc_now()))
    total = connection.execute(select(func.count()).select_from(tables.delegation).where(*conditions)).scalar_one()
    rows = connection.execute(
        select(*_LOAN_COLUMNS)
        .where(*conditions)
        .order_by(_LOAN.created_at.desc(), _LOAN.id)
        .offset(offset)
        .limit(limit)
    )
    return [Delegation(*row) for row in rows], total


def find_loan(connection: Connection, administrator: Account, loan: uuid.UUID) -> Delegation:
    """Return a loan that counts now.

    Raises
    ------
    NotFoundError
        There is none within reach, or it has ended.
    """
    row = connection.execute(
        select(*_LOAN_COLUMNS).where(_LOAN.id == loan, _LOAN.ended_at.is_(None), _within(connection, administrator))
    ).one_or_none()
    if row is None:
        raise NotFoundError("There is no such loan")
    return Delegation(*row)


def end_loan(connection: Connection, administrator: Account, loan: uuid.UUID) -> Delegation:
    """End a loan; tokens of the borrower that make use of it end. Who may decide on one of the two may end it.

    Raises
    ------
    ForbiddenError, NotFoundError
        The policy refuses, or there is no such loan.
    """
    found = find_loan(connection, administrator, loan)
    if decide(connection, administrator, GRANT_PERMISSIONS, accounts.require_account(connection, found.borrower)):
        require(connection, administrator, GRANT_PERMISSIONS, accounts.require_account(connection, found.lender))
    return end_delegation(connection, loan, administrator.name)


def _within(connection: Connection, administrator: Account) -> ColumnElement[bool]:
    within = reach(connection, administrator, GRANT_PERMISSIONS)
    if within.everywhere:
        return true()
    mine = select(_ACCOUNT.name).where(within.condition(_ACCOUNT.institution))
    return or_(_LOAN.lender.in_(mine), _LOAN.borrower.in_(mine))
