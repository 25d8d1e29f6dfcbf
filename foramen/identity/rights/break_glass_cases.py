"""Occasions of break-glass as rows, and the questions that the policy is asked about them.

Each holds one patient, a reason, when it ends and what reviewers thought of it; `policies/break_glass.rego` decides.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, or_, select

from foramen.identity import tables
from foramen.identity.people.accounts import Account
from foramen.identity.policy import evaluate
from foramen.identity.rights.permissions import GRANT, WITHDRAW, current_changes

PERMISSION, WHAT, REVIEW = "break-glass", "break-glass", "break-glass-review"


@dataclass(frozen=True, slots=True)
class BreakGlassCase:
    """One occasion. `patient` is a logical id; `reason` the person's own words, for reviewers only.

    `session_digest` is None once the session it lived in is gone.
    """

    id: uuid.UUID
    account: str
    institution: str | None
    session_digest: str | None
    patient: str
    reason_code: str
    reason: str
    address: str | None
    started_at: datetime
    until: datetime
    ended_at: datetime | None = None
    ended_by: str | None = None
    reviewed_at: datetime | None = None
    reviewed_by: str | None = None
    verdict: str | None = None
    note: str | None = None

    def in_force(self, now: datetime) -> bool:
        """Whether a token may still be issued with it."""
        return self.ended_at is None and self.session_digest is not None and self.until > now

    def overdue(self, now: datetime, within: timedelta) -> bool:
        """Whether it should have been reviewed by now: `within` after its start."""
        return self.reviewed_at is None and self.started_at + within < now


COLUMNS = tables.break_glass.c
FIELDS = tuple(COLUMNS[name] for name in BreakGlassCase.__dataclass_fields__)


def reason_codes() -> dict[str, dict[str, str]]:
    """Return the reasons that can be given, in the order to show them, each with its words (`zh`, `en`)."""
    reasons = evaluate("break_glass.reasons", {})
    return {code: reasons[code] for code in sorted(reasons, key=lambda code: int(reasons[code]["place"]))}


def standing(connection: Connection, account: Account) -> dict[str, Any]:
    """Return what the policy asks of every account: its role and single permissions. Loans never count here."""
    current = current_changes(connection, account.name)
    return {
        "role": account.role,
        "granted": sorted(change.permission for change in current if change.effect == GRANT),
        "lent": [],
        "withdrawn": sorted(change.permission for change in current if change.effect == WITHDRAW),
    }


def arranged_by(connection: Connection, case: BreakGlassCase) -> list[str]:
    """Return who gave the account what the occasion took: made it, its last password link, or granted the permission.

    A grant counts that was in force when the occasion started.
    """
    account, change = tables.account.c, tables.permission_change.c
    made = connection.execute(
        select(account.created_by, account.link_made_by).where(account.name == case.account)
    ).one_or_none()
    granted = connection.execute(
        select(change.decided_by).where(
            change.account == case.account,
            change.permission == PERMISSION,
            change.effect == GRANT,
            change.created_at <= case.started_at,
            or_(change.ended_at.is_(None), change.ended_at > case.started_at),
        )
    ).scalars()
    return sorted({name for name in (*(made or ()), *granted) if name})


def refused_rules(rule: str, question: dict[str, Any]) -> list[str]:
    """Ask the policy (``start``, ``carry`` or ``review``); returns the rules that refuse, empty when it allows."""
    answer = evaluate(f"break_glass.{rule}", question)
    return [] if answer["allow"] else [one["rule"] for one in answer["rules"] if not one["holds"]]


def may_break_glass(connection: Connection, account: Account) -> bool:
    """Whether the account has the permission as its own: then its page offers emergency access."""
    refused = refused_rules("start", standing(connection, account))
    return not {"permission", "treats"} & set(refused)


def current_case(connection: Connection, account: str, now: datetime) -> BreakGlassCase | None:
    """Return the occasion an account has in force, in whichever of its sessions; there is one at most."""
    row = connection.execute(
        select(*FIELDS).where(
            COLUMNS.account == account,
            COLUMNS.ended_at.is_(None),
            COLUMNS.session_digest.is_not(None),
            COLUMNS.until > now,
        )
    ).first()
    return BreakGlassCase(*row) if row else None


def find_by_id(connection: Connection, case_id: uuid.UUID, *, lock: bool = False) -> BreakGlassCase | None:
    """Return an occasion, whoever asks; `lock`: nobody else changes it until the transaction ends."""
    query = select(*FIELDS).where(COLUMNS.id == case_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return BreakGlassCase(*row) if row else None
