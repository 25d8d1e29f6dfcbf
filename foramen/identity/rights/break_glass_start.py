"""Start emergency access: the policy is asked, the occasion and its alert are rows of one transaction."""

from __future__ import annotations

import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, func, select

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.people.second_factor import enrolled
from foramen.identity.people.sessions import Session
from foramen.identity.rights.break_glass_cases import (
    COLUMNS,
    WHAT,
    BreakGlassCase,
    current_case,
    refused_rules,
    standing,
)
from foramen.identity.rights.permissions import lock_account
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.errors import ConflictError, ForbiddenError
from foramen.kernel.log import get_log
from foramen.kernel.settings import Settings

_DAY = timedelta(hours=24)


class BreakGlassRefusedError(ForbiddenError):
    """The policy refuses; `rules` names why."""

    def __init__(self, rules: list[str]) -> None:
        super().__init__(f"The policy refuses: {', '.join(rules)}")
        self.rules = rules


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for; `id` came with the form and is good once."""

    id: uuid.UUID
    patient: str
    reason_code: str
    reason: str


def start(
    connection: Connection, settings: Settings, session: Session, wanted: Wanted, *, address: str | None = None
) -> BreakGlassCase:
    """Start emergency access in a session; tokens issued to it from now on carry it.

    Whether there is such a patient is not asked: nobody learns here what the record would not tell.

    Raises
    ------
    BreakGlassRefusedError
        A rule of the policy refuses; nothing was written.
    ConflictError
        The form was used already.
    """
    account = session.account
    lock_account(connection, account.name)  # Two forms sent at once are one after the other.
    now = utc_now()
    if connection.execute(select(COLUMNS.id).where(COLUMNS.id == wanted.id)).one_or_none() is not None:
        raise ConflictError("The form was used already")
    refused = refused_rules("start", _question(connection, settings, session, wanted, now))
    if refused:
        raise BreakGlassRefusedError(refused)
    case = BreakGlassCase(
        id=wanted.id,
        account=account.name,
        institution=account.institution,
        session_digest=session.session_digest,
        patient=wanted.patient,
        reason_code=wanted.reason_code,
        reason=wanted.reason,
        address=address,
        started_at=now,
        until=now + timedelta(seconds=settings.break_glass_s),
    )
    connection.execute(
        tables.break_glass.insert().values({name: getattr(case, name) for name in BreakGlassCase.__dataclass_fields__})
    )
    due = now if settings.break_glass_alert_url else None
    connection.execute(
        tables.break_glass_alert.insert().values(break_glass=case.id, created_at=now, attempts=0, next_attempt_at=due)
    )
    event = SecurityEvent(
        WHAT,
        SUCCESS,
        account=account.name,
        fhir_user=account.fhir_user,
        patient=case.patient,
        address=address,
        reason=f"started: {case.reason_code}",
        break_glass=str(case.id),
    )
    record(connection, event)
    return case


def announce(case: BreakGlassCase) -> None:
    """Write the log line of a start, once it is committed: its id and the kind of reason, nothing of anybody."""
    get_log().warning("break-glass started", part="identity", logical_id=str(case.id), reason=case.reason_code)


def _question(
    connection: Connection, settings: Settings, session: Session, wanted: Wanted, now: datetime
) -> dict[str, Any]:
    account = session.account
    age = now - (session.authenticated_at or session.signed_in_at)
    return {
        **standing(connection, account),
        "session": {
            "age_s": int(age.total_seconds()),
            "two_factors": session.has_second_factor,
            "second_factor": enrolled(connection, account.name).number > 0,
        },
        "patient": wanted.patient,
        "reason": {"code": wanted.reason_code, "length": len(wanted.reason)},
        "started": started_lately(connection, account.name, now),
        "limit": settings.break_glass_per_day,
        "in_force": current_case(connection, account.name, now) is not None,
    }


def started_lately(connection: Connection, account: str, now: datetime) -> int:
    """Return how many occasions an account has started in the last 24 hours."""
    count = select(func.count()).where(COLUMNS.account == account, COLUMNS.started_at > now - _DAY)
    return int(connection.execute(count).scalar_one())


# The form's ticket: the id of what it may start, tied to the session that it was shown in.


def new_ticket(secret: str, session_digest: str) -> str:
    """Return a ticket for one form."""
    case_id = uuid.uuid4()
    return f"{case_id}.{_mac(secret, session_digest, case_id)}"


def ticket_id(secret: str, session_digest: str, ticket: str) -> uuid.UUID | None:
    """Return the id in a ticket of this session, or None when it is none of ours."""
    text, _, mac = ticket.partition(".")
    try:
        case_id = uuid.UUID(text)
    except ValueError:
        return None
    expected = _mac(secret, session_digest, case_id)
    return case_id if hmac.compare_digest(expected.encode(), mac.encode()) else None


def _mac(secret: str, session_digest: str, case_id: uuid.UUID) -> str:
    return hmac.new(secret.encode(), f"break-glass:{session_digest}:{case_id}".encode(), sha256).hexdigest()
