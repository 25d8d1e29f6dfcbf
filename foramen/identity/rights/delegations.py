"""Lending a permission (账号借用): named, limited to the lender's own, expiring; the borrower keeps the own account.

Tokens of the borrower name the lender; so do their AuditEvents.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, or_, select, update

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.people.accounts import Account
from foramen.identity.rights.permissions import check_occasion, end_exceeding, lending_refused
from foramen.identity.security_event import REFUSED, SUCCESS, SecurityEvent
from foramen.kernel.errors import ForbiddenError, InvalidRequestError, NotFoundError


@dataclass(frozen=True, slots=True)
class Delegation:
    """One permission lent by one account to another."""

    id: uuid.UUID
    lender: str
    borrower: str
    permission: str
    until: datetime
    reason: str
    created_at: datetime
    ended_at: datetime | None = None


_DELEGATION = tables.delegation.c
_COLUMNS = tuple(_DELEGATION[name] for name in Delegation.__dataclass_fields__)


def delegate(
    connection: Connection,
    lender: Account,
    borrower: Account,
    permission: str,
    *,
    until: datetime,
    reason: str,
    longest: timedelta,
) -> Delegation:
    """Lend one permission; it counts for the borrower's next token.

    Parameters
    ----------
    until : aware, at most `longest` from now
    reason : why, 1 to 500 characters

    Raises
    ------
    InvalidRequestError
        No reason, or a time that is over or too far off.
    ForbiddenError
        The policy refuses; the rules that do are in the message.
    """
    now = utc_now()
    check_occasion(reason, until, now)
    if until > now + longest:
        raise InvalidRequestError(f"A permission is lent for at most {longest.days} days")
    refused = lending_refused(connection, lender, borrower, permission)
    if refused:
        raise ForbiddenError(f"This cannot be lent: {', '.join(refused)}")
    made = Delegation(uuid.uuid4(), lender.name, borrower.name, permission, until, reason, now)
    connection.execute(
        tables.delegation.insert().values({name: getattr(made, name) for name in Delegation.__dataclass_fields__})
    )
    said = f"{permission} until {until.isoformat(timespec='minutes')}: {reason}"
    record(
        connection,
        SecurityEvent(
            "delegation",
            SUCCESS,
            account=lender.name,
            fhir_user=lender.fhir_user,
            concerns=borrower.name,
            reason=said,
        ),
    )
    return made


def record_refusal(connection: Connection, lender: Account, borrower: Account, permission: str) -> None:
    """Leave an audit event of a loan that was refused."""
    event = SecurityEvent("delegation", REFUSED, account=lender.name, concerns=borrower.name, reason=permission)
    record(connection, event)


def list_delegations(connection: Connection, name: str) -> list[Delegation]:
    """Return what an account ever lent or borrowed, newest first."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(or_(_DELEGATION.lender == name, _DELEGATION.borrower == name))
        .order_by(_DELEGATION.created_at.desc())
    )
    return [Delegation(*row) for row in rows]


def end_delegation(connection: Connection, delegation: uuid.UUID, decided_by: str) -> Delegation:
    """End a loan now; tokens of the borrower that hold more than is left are revoked.

    Raises
    ------
    NotFoundError
        There is no such loan, or it has ended.
    """
    row = connection.execute(
        update(tables.delegation)
        .where(_DELEGATION.id == delegation, _DELEGATION.ended_at.is_(None))
        .values(ended_at=utc_now())
        .returning(*_COLUMNS)
    ).one_or_none()
    if row is None:
        raise NotFoundError("There is no such loan")
    ended = Delegation(*row)
    end_exceeding(connection, ended.borrower)
    said = f"{ended.permission} ended"
    record(connection, SecurityEvent("delegation", SUCCESS, account=decided_by, concerns=ended.borrower, reason=said))
    return ended


def end_loans(connection: Connection, name: str, decided_by: str) -> None:
    """End all that an account lends and borrows now; tokens of borrowers that hold more than is left are revoked."""
    for loan in list_delegations(connection, name):
        if loan.ended_at is None and loan.until > utc_now():
            end_delegation(connection, loan.id, decided_by)
