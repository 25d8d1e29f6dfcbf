"""What an account may do now: its role, single permissions granted or withdrawn, and what others lend to it.

The policy decides (`policies/permissions.rego`); this is the edge that asks it with what the tables say.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    DateTime,
    and_,
    bindparam,
    literal_column,
    or_,
    select,
    update,
)

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.oauth.scopes import Permitted, covers, resource_scopes
from foramen.identity.oauth.token_families import revoke_family
from foramen.identity.people.accounts import Account, find_account
from foramen.identity.policy import evaluate, table
from foramen.identity.rights.roles import permitted_scopes
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.access_context import ADMINISTRATOR
from foramen.kernel.errors import InvalidRequestError, NotFoundError

GRANT, WITHDRAW = "grant", "withdraw"
MAINTAIN_RECORD = "maintain-record"
MANAGE_INSTITUTIONS = "manage-institutions"
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Rights:
    """What an account may do now.

    `until`: when this changes by itself, if it does. `lenders`: names of those whose permissions are among them.
    `reachable`: what its role can have.
    """

    permissions: frozenset[str]
    scopes: Permitted
    until: datetime | None = None
    lenders: tuple[str, ...] = ()
    reachable: frozenset[str] = frozenset()

    @property
    def maintains_record(self) -> bool:
        """Whether `foramen/admin` may be granted, given a second factor."""
        return MAINTAIN_RECORD in self.permissions

    @property
    def manages_institutions(self) -> bool:
        """Whether no institution bounds what the account's tokens reach."""
        return MANAGE_INSTITUTIONS in self.permissions

    def lifetime_s(self, now: datetime, usual_s: int) -> int:
        """Return how long an access token of these rights may live: no longer than they do."""
        left = usual_s if self.until is None else int((self.until - now).total_seconds())
        return max(1, min(usual_s, left))

    def covers(self, scope: str) -> bool:
        """Whether all that a granted scope string allows lies within these rights."""
        if ADMINISTRATOR in scope.split() and not self.maintains_record:
            return False
        return covers(self.scopes.text, _resources(scope))


def _resources(scope: str) -> str:
    return " ".join(str(item) for item in resource_scopes(scope))


@dataclass(frozen=True, slots=True)
class PermissionChange:
    """One permission granted to or withdrawn from an account; without `until` it holds until it is changed."""

    account: str
    permission: str
    effect: str
    until: datetime | None
    reason: str
    decided_by: str
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Loan:
    """A permission that somebody lends now."""

    lender: str
    permission: str
    until: datetime


_CHANGE = tables.permission_change.c
_CHANGE_COLUMNS = tuple(_CHANGE[name] for name in PermissionChange.__dataclass_fields__)
_LENT = tables.delegation.c
_HOLD = (
    select(tables.account.c.name)
    .where(tables.account.c.name == bindparam("wanted"))
    .with_for_update(read=True, key_share=True)
)
_NOW = bindparam("now", type_=DateTime(timezone=True))


def single_rights(wanted: ColumnElement[str]) -> CompoundSelect[Any]:
    """Return the query of single permissions and loans to an account; a loan has a lender. Parameter `now`."""
    return (
        select(_CHANGE.permission, _CHANGE.effect, _CHANGE.until, literal_column("NULL::text").label("lender"))
        .where(
            _CHANGE.account == wanted,
            _CHANGE.ended_at.is_(None),
            or_(_CHANGE.until.is_(None), _CHANGE.until > _NOW),
        )
        .union_all(
            select(_LENT.permission, literal_column("NULL::text"), _LENT.until, _LENT.lender).where(
                _LENT.borrower == wanted, _LENT.ended_at.is_(None), _LENT.until > _NOW
            )
        )
    )


RIGHTS = single_rights(bindparam("wanted"))


def rights_of(connection: Connection, account: Account, *, held: bool = False) -> Rights:
    """Return what an account may do now; changes of its rights wait until this transaction has ended.

    A loan counts while it could be made: the lender is active and has the permission without borrowing it, the borrower
    can have it, and both are of one institution.

    Parameters
    ----------
    held : the caller read the account in this transaction with a lock on its row, which is what changes wait for
    """
    if not held:
        connection.execute(_HOLD, {"wanted": account.name})
    rows = connection.execute(RIGHTS, {"wanted": account.name, "now": utc_now()}).all()
    offered = [Loan(row.lender, row.permission, row.until) for row in rows if row.lender is not None]
    loans = [loan for loan in offered if _still_lends(connection, loan, account)]
    return _rights(account, [(row.permission, row.effect, row.until) for row in rows if row.lender is None], loans)


def own_rights(connection: Connection, account: Account) -> Rights:
    """Return what an account may do without what is lent to it."""
    changes = current_changes(connection, account.name)
    return _rights(account, [(change.permission, change.effect, change.until) for change in changes], [])


def _rights(account: Account, current: Sequence[tuple[str, str, datetime | None]], loans: list[Loan]) -> Rights:
    question = {
        "role": account.role,
        "granted": sorted(permission for permission, effect, _ in current if effect == GRANT),
        "lent": sorted({loan.permission for loan in loans}),
        "withdrawn": sorted(permission for permission, effect, _ in current if effect == WITHDRAW),
    }
    answer = evaluate("permissions.rights", question)
    permissions = frozenset(answer["permissions"])
    own = frozenset(evaluate("permissions.rights", {**question, "lent": []})["permissions"]) if loans else permissions
    used = [loan for loan in loans if loan.permission in permissions - own]
    ends = [until for _, effect, until in current if until and effect == GRANT]
    ends += [loan.until for loan in used]
    return Rights(
        permissions,
        permitted_scopes(tuple(answer["scopes"])),
        min(ends, default=None),
        tuple(sorted({loan.lender for loan in used})),
        frozenset(answer["reachable"]),
    )


def _still_lends(connection: Connection, loan: Loan, borrower: Account) -> bool:
    lender = find_account(connection, loan.lender)
    return lender is not None and not lending_refused(connection, lender, borrower, loan.permission)


def lending_refused(connection: Connection, lender: Account, borrower: Account, permission: str) -> list[str]:
    """Return the rules of the policy that refuse a loan; empty: it may be made, and one that was made counts."""
    answer = evaluate(
        "delegation.answer",
        {
            "permission": permission,
            "lender": {
                "name": lender.name,
                "institution": lender.institution,
                "permissions": sorted(own_rights(connection, lender).permissions),
            },
            "borrower": {
                "name": borrower.name,
                "institution": borrower.institution,
                "reachable": sorted(own_rights(connection, borrower).reachable),
            },
        },
    )
    return [] if answer["allow"] else [rule["rule"] for rule in answer["rules"] if not rule["holds"]]


def current_changes(connection: Connection, account: str) -> list[PermissionChange]:
    """Return the grants and withdrawals that count now, by permission."""
    still = and_(_CHANGE.ended_at.is_(None), or_(_CHANGE.until.is_(None), _CHANGE.until > utc_now()))
    rows = connection.execute(
        select(*_CHANGE_COLUMNS).where(_CHANGE.account == account, still).order_by(_CHANGE.permission)
    )
    return [PermissionChange(*row) for row in rows]


def all_changes(connection: Connection, account: str) -> list[PermissionChange]:
    """Return every grant and withdrawal there ever was, newest first."""
    rows = connection.execute(
        select(*_CHANGE_COLUMNS).where(_CHANGE.account == account).order_by(_CHANGE.created_at.desc())
    )
    return [PermissionChange(*row) for row in rows]


def change_permission(
    connection: Connection,
    account: Account,
    permission: str,
    effect: str,
    *,
    reason: str,
    decided_by: str,
    until: datetime | None = None,
) -> Rights:
    """Grant or withdraw one permission; what was decided on it before ends, tokens that hold more are revoked.

    Parameters
    ----------
    effect : `GRANT` or `WITHDRAW`
    until : aware; None: until it is changed
    reason : why, 1 to 500 characters
    decided_by : the account that decides, or a word for an operator

    Returns
    -------
    The rights the account has from now on.

    Raises
    ------
    InvalidRequestError
        Permission unknown, out of reach of the role, no reason, or a time that is over.
    NotFoundError
        The account is gone.
    """
    now = utc_now()
    check_occasion(reason, until, now)
    if permission not in table("permissions"):
        raise InvalidRequestError("There is no such permission (docs/roles.md lists them)")
    lock_account(connection, account.name)
    if effect == GRANT and permission not in own_rights(connection, account).reachable:
        raise InvalidRequestError("An account of this role cannot have this permission")
    connection.execute(
        update(tables.permission_change)
        .where(_CHANGE.account == account.name, _CHANGE.permission == permission, _CHANGE.ended_at.is_(None))
        .values(ended_at=now)
    )
    values = {"account": account.name, "permission": permission, "effect": effect, "until": until}
    connection.execute(
        tables.permission_change.insert().values(
            id=uuid.uuid4(), reason=reason, decided_by=decided_by, created_at=now, **values
        )
    )
    limit = f" until {until.isoformat(timespec='minutes')}" if until else ""
    said = f"{permission}{limit}: {reason}"
    record(connection, SecurityEvent(effect, SUCCESS, account=decided_by, concerns=account.name, reason=said))
    end_exceeding(connection, account.name)
    return rights_of(connection, account)


def check_occasion(reason: str, until: datetime | None, now: datetime) -> None:
    """Refuse a decision without a reason or for a time that is over.

    Raises
    ------
    InvalidRequestError
        See above.
    """
    if not 0 < len(reason.strip()) <= _LONGEST_REASON:
        raise InvalidRequestError(f"A reason of at most {_LONGEST_REASON} characters is needed")
    if until is not None and until <= now:
        raise InvalidRequestError("The end lies in the past")


def lock_account(connection: Connection, name: str) -> None:
    """Wait for tokens being issued to the account, and keep others from being issued until this transaction ends.

    Raises
    ------
    NotFoundError
        There is no such account.
    """
    column = tables.account.c
    if connection.execute(select(column.name).where(column.name == name).with_for_update()).one_or_none() is None:
        raise NotFoundError("There is no such account")
    # Another version of the row: what read it before, and held nothing, issues nothing by it any more (ADR 0046).
    connection.execute(update(tables.account).where(column.name == name).values(disabled=column.disabled))


def end_exceeding(connection: Connection, name: str) -> int:
    """Revoke what an account, and those it lends to, hold beyond their rights of now; returns how many authorizations.

    Their accounts are locked by name order, so that two of these do not wait for each other.
    """
    from foramen.identity.rights import break_glass

    columns, family = tables.delegation.c, tables.token_family.c
    borrowers = connection.execute(
        select(columns.borrower).where(columns.lender == name, columns.ended_at.is_(None)).distinct()
    ).scalars()
    ended = 0
    for holder in sorted({name, *borrowers}):
        lock_account(connection, holder)
        account = find_account(connection, holder)
        rights = rights_of(connection, account) if account else Rights(frozenset(), Permitted())
        if break_glass.PERMISSION not in rights.permissions:
            break_glass.end_without_permission(connection, holder)
        held = connection.execute(
            select(family.family, family.scope).where(family.account == holder, family.revoked_at.is_(None))
        ).all()
        for row in held:
            if not rights.covers(row.scope):
                revoke_family(connection, row.family)
                ended += 1
    return ended
