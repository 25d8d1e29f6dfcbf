"""What an administrator should look at now, counted within the reach of their permissions; None: not theirs to see."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, FromClause, and_, exists, func, select

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.oauth.clients import PENDING
from foramen.identity.people.accounts import Account
from foramen.identity.rights.account_directory import is_locked_at
from foramen.identity.rights.administration import GRANT_PERMISSIONS, MANAGE_ACCOUNTS, Reach, reach
from foramen.identity.rights.permissions import own_rights

_MANAGE_CLIENTS, _REVIEW, _READ_AUDIT = "manage-clients", "review-break-glass", "read-audit"
SOON = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Attention:
    """Numbers of the overview.

    `late_events`: AuditEvents that were sent in vain at least once; `oldest_event`: since when the oldest waits.
    """

    active: int | None = None
    locked: int | None = None
    disabled: int | None = None
    without_factor: int | None = None
    sessions: int | None = None
    grants_ending: int | None = None
    loans: int | None = None
    pending_clients: int | None = None
    unreviewed: int | None = None
    late_events: int | None = None
    oldest_event: datetime | None = None


def attention(
    connection: Connection, administrator: Account, *, idle_s: int, two_factor_roles: Collection[str]
) -> Attention:
    """Count what needs attention.

    Parameters
    ----------
    idle_s : seconds after which an unused session is over
    two_factor_roles : roles whose accounts need a second factor
    """
    held, now = own_rights(connection, administrator).permissions, utc_now()
    numbers: dict[str, int | datetime | None] = {}
    if MANAGE_ACCOUNTS in held:
        within = reach(connection, administrator, MANAGE_ACCOUNTS)
        numbers |= _accounts(connection, within, now, idle_s, two_factor_roles)
    if GRANT_PERMISSIONS in held:
        numbers |= _grants(connection, reach(connection, administrator, GRANT_PERMISSIONS), now)
    if _MANAGE_CLIENTS in held:
        numbers["pending_clients"] = _count(connection, tables.client, tables.client.c.status == PENDING)
    if _REVIEW in held:
        case = tables.break_glass.c
        mine = reach(connection, administrator, _REVIEW).condition(case.institution)
        numbers["unreviewed"] = _count(connection, tables.break_glass, mine, case.reviewed_at.is_(None))
    if _READ_AUDIT in held:
        numbers |= _deliveries(connection)
    return Attention(**numbers)  # type: ignore[arg-type]


def _count(connection: Connection, source: FromClause, *conditions: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(source).where(*conditions)).scalar_one()


def _accounts(
    connection: Connection, within: Reach, now: datetime, idle_s: int, roles: Collection[str]
) -> dict[str, int | datetime | None]:
    account, session = tables.account.c, tables.session.c
    mine, locked = within.condition(account.institution), is_locked_at(now)
    both = tables.session.join(tables.account, session.account == account.name)
    live = and_(session.expires_at > now, session.last_seen_at > now - timedelta(seconds=idle_s), ~account.disabled)
    has_factor = exists().where(tables.totp_device.c.account == account.name) | exists().where(
        tables.passkey.c.account == account.name
    )
    lacks = and_(account.role.in_(sorted(roles)), ~account.disabled, ~has_factor)
    return {
        "active": _count(connection, tables.account, mine, ~account.disabled, ~locked),
        "locked": _count(connection, tables.account, mine, ~account.disabled, locked),
        "disabled": _count(connection, tables.account, mine, account.disabled),
        "without_factor": _count(connection, tables.account, mine, lacks),
        "sessions": _count(connection, both, mine, live),
    }


def _grants(connection: Connection, within: Reach, now: datetime) -> dict[str, int | datetime | None]:
    account, change, loan = tables.account.c, tables.permission_change.c, tables.delegation.c
    mine = within.condition(account.institution)
    changes = tables.permission_change.join(tables.account, change.account == account.name)
    loans = tables.delegation.join(tables.account, loan.lender == account.name)
    ending = and_(change.ended_at.is_(None), change.until > now, change.until <= now + SOON)
    return {
        "grants_ending": _count(connection, changes, mine, ending),
        "loans": _count(connection, loans, mine, loan.ended_at.is_(None), loan.until > now),
    }


def _deliveries(connection: Connection) -> dict[str, int | datetime | None]:
    column = tables.audit_outbox.c
    late = _count(connection, tables.audit_outbox, column.attempts > 1)
    # The id grows with time: the first row is the oldest.
    oldest = connection.execute(
        select(column.event["recorded"].astext).order_by(column.id).limit(1)
    ).scalar_one_or_none()
    return {"late_events": late, "oldest_event": datetime.fromisoformat(oldest) if oldest else None}
