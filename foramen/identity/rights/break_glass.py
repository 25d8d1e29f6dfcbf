"""Break-glass: emergency access to one patient's record; how it ends, and what administrators do with it.

The occasions are `break_glass_cases`; starting is `break_glass_start`, what tokens carry
`break_glass_tokens`, telling others `break_glass_alerts`. ISO 22600-1 §6, NIST SP 800-66 (emergency access procedure).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, update

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.people.accounts import Account
from foramen.identity.rights.break_glass_cases import (
    COLUMNS,
    FIELDS,
    PERMISSION,
    REVIEW,
    WHAT,
    BreakGlassCase,
    arranged_by,
    current_case,
    find_by_id,
    may_break_glass,
    reason_codes,
    refused_rules,
    standing,
)
from foramen.identity.rights.permissions import lock_account
from foramen.identity.security_event import REFUSED, SUCCESS, SecurityEvent
from foramen.kernel.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError

__all__ = [
    "JUSTIFIED",
    "PERMISSION",
    "UNJUSTIFIED",
    "VERDICTS",
    "BreakGlassCase",
    "Wall",
    "arranged_by",
    "current_case",
    "end",
    "end_without_permission",
    "find_case",
    "list_cases",
    "list_unreviewed",
    "may_break_glass",
    "may_review",
    "own_case",
    "reason_codes",
    "record_refusal",
    "review",
]
JUSTIFIED, UNJUSTIFIED = "justified", "unjustified"
VERDICTS = (JUSTIFIED, UNJUSTIFIED)
LONGEST_NOTE = 500
_REFUSED = {
    "another": "Nobody reviews their own emergency access",
    "arranged": "Nobody reviews an emergency access that they have arranged: somebody else has to",
    "patient": "The emergency access to another institution's patient is reviewed by a system administrator",
}


def own_case(connection: Connection, account: Account, case_id: uuid.UUID) -> BreakGlassCase:
    """Return an occasion of the account itself.

    Raises
    ------
    NotFoundError
        There is none of this id, or it is another's.
    """
    found = find_by_id(connection, case_id)
    if found is None or found.account != account.name:
        raise NotFoundError("There is no such emergency access")
    return found


# What reviewers do


@dataclass(frozen=True, slots=True)
class Wall:
    """How institutions divide the record, and where the patient of an occasion stands.

    Parameters
    ----------
    institutions : the setting `FORAMEN_INSTITUTIONS`: ``shared`` or ``separate``
    managed_by : the institution that manages the patient, as the record says now; None: not known, or none
    """

    institutions: str
    managed_by: str | None = None


def _review_question(
    connection: Connection, administrator: Account, case: BreakGlassCase | None, wall: Wall | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if case is not None:
        found = {
            "account": case.account,
            "institution": case.institution,
            "arranged_by": arranged_by(connection, case),
            "managed_by": wall.managed_by if wall else None,
        }
    who = {"name": administrator.name, "institution": administrator.institution}
    return {
        **standing(connection, administrator),
        **who,
        "case": found,
        "institutions": wall.institutions if wall else None,
    }


def may_review(
    connection: Connection, administrator: Account, case: BreakGlassCase, wall: Wall | None = None
) -> list[str]:
    """Return the rules that refuse a review; empty: it may be done.

    They are ``permission``, ``institution``, ``another`` (the own one), ``arranged`` (what the own grant, account or
    link was used for) and ``patient`` (another institution's; without `wall` it is not known whose).
    """
    return refused_rules("review", _review_question(connection, administrator, case, wall))


def _out_of_reach(connection: Connection, administrator: Account, case: BreakGlassCase) -> bool:
    """Whether it is none of the administrator's business: to look at an occasion and to end it, less is asked."""
    return bool({"permission", "institution"} & set(may_review(connection, administrator, case)))


def _require_reviewer(connection: Connection, administrator: Account) -> None:
    if "permission" in refused_rules("review", _review_question(connection, administrator, None, None)):
        raise ForbiddenError("This needs the permission review-break-glass")


def list_unreviewed(connection: Connection, administrator: Account) -> list[BreakGlassCase]:
    """Return what waits for review where the administrator may look, the oldest first.

    The own ones are among them; reviewing these is for somebody else (`may_review`).

    Raises
    ------
    ForbiddenError
        The account has no permission to review.
    """
    waiting = select(*FIELDS).where(COLUMNS.reviewed_at.is_(None)).order_by(COLUMNS.started_at, COLUMNS.id)
    return _listed(connection, administrator, waiting)


def list_cases(
    connection: Connection, administrator: Account, *, before: datetime | None = None, limit: int = 200
) -> list[BreakGlassCase]:
    """Return occasions of the administrator's reach, reviewed or not, the newest first.

    Parameters
    ----------
    before : only those that started earlier, to page on
    limit : at most so many

    Raises
    ------
    ForbiddenError
        The account has no permission to review.
    """
    query = select(*FIELDS).order_by(COLUMNS.started_at.desc()).limit(limit)
    query = query.where(COLUMNS.started_at < before) if before else query
    return _listed(connection, administrator, query)


def _listed(connection: Connection, administrator: Account, query: Any) -> list[BreakGlassCase]:
    _require_reviewer(connection, administrator)
    everywhere = "institution" not in may_review(connection, administrator, _NOWHERE)
    if not everywhere:
        query = query.where(COLUMNS.institution == administrator.institution)  # Nothing, where there is none.
    return [BreakGlassCase(*row) for row in connection.execute(query)]


_LONG_AGO = datetime.fromtimestamp(0, UTC)
_NOWHERE = BreakGlassCase(uuid.UUID(int=0), "", None, None, "", "", "", None, _LONG_AGO, _LONG_AGO)
"""Belongs to no institution: only who acts everywhere reaches it."""


def find_case(connection: Connection, administrator: Account, case_id: uuid.UUID) -> BreakGlassCase:
    """Return one occasion for a reviewer.

    Raises
    ------
    ForbiddenError
        The account has no permission to review.
    NotFoundError
        There is none of this id, or it belongs to another institution.
    """
    _require_reviewer(connection, administrator)
    found = find_by_id(connection, case_id)
    if found is None or "institution" in may_review(connection, administrator, found):
        raise NotFoundError("There is no such emergency access")
    return found


def review(
    connection: Connection, administrator: Account, case_id: uuid.UUID, verdict: str, note: str = "", *, wall: Wall
) -> BreakGlassCase:
    """Judge an occasion that is over; it is done once and stays.

    Parameters
    ----------
    verdict : one of `VERDICTS`
    note : up to 500 characters, for reviewers; needed when it was not justified
    wall : whose patient it was, where institutions divide the record

    Raises
    ------
    InvalidRequestError
        The verdict is none, or the note is missing or too long.
    ForbiddenError
        No permission, it is the administrator's own or of their own arranging, or another institution's patient.
    NotFoundError
        See `find_case`.
    ConflictError
        It is still in force, or was reviewed already.
    """
    note = note.strip()
    if verdict not in VERDICTS:
        raise InvalidRequestError(f"A verdict is one of {', '.join(VERDICTS)}")
    if len(note) > LONGEST_NOTE or (verdict == UNJUSTIFIED and not note):
        raise InvalidRequestError(f"A note of at most {LONGEST_NOTE} characters is needed when it was not justified")
    found = find_case(connection, administrator, case_id)
    refused = may_review(connection, administrator, found, wall)
    if refused:
        raise ForbiddenError(next(said for rule, said in _REFUSED.items() if rule in refused))
    found = find_by_id(connection, case_id, lock=True) or found
    now = utc_now()
    if found.in_force(now):
        raise ConflictError("It is still in force: end it first")
    if found.reviewed_at is not None:
        raise ConflictError("It was reviewed already")
    values = {"reviewed_at": now, "reviewed_by": administrator.name, "verdict": verdict, "note": note or None}
    row = connection.execute(
        update(tables.break_glass).where(COLUMNS.id == case_id).values(**values).returning(*FIELDS)
    ).one()
    _note(connection, REVIEW, administrator, found, verdict)
    return BreakGlassCase(*row)


def end(connection: Connection, who: Account, case_id: uuid.UUID, *, address: str | None = None) -> BreakGlassCase:
    """End an occasion: the own one, or any that `who` could review. Tokens that carry it are revoked at once.

    Ending what is over changes nothing.

    Raises
    ------
    NotFoundError
        There is none of this id that `who` may end.
    """
    found = find_by_id(connection, case_id)
    if found is None or (found.account != who.name and _out_of_reach(connection, who, found)):
        raise NotFoundError("There is no such emergency access")
    lock_account(connection, found.account)  # Tokens being issued to it are waited for, and revoked with the others.
    now = utc_now()
    if not found.in_force(now):
        return found
    _end(connection, (case_id,), who.name, now)
    _note(connection, WHAT, who, found, "ended", address)
    return find_by_id(connection, case_id) or found


def end_without_permission(connection: Connection, account: str) -> int:
    """End what an account has in force, as it has lost the permission; returns how many. Its row is locked by now."""
    now = utc_now()
    found = current_case(connection, account, now)
    if found is None:
        return 0
    _end(connection, (found.id,), "policy", now)
    event = SecurityEvent(
        WHAT, SUCCESS, account=account, patient=found.patient, reason="permission lost", break_glass=str(found.id)
    )
    record(connection, event)
    return 1


def _end(connection: Connection, cases: Sequence[uuid.UUID], by: str, now: datetime) -> None:
    connection.execute(
        update(tables.break_glass)
        .where(COLUMNS.id.in_(cases), COLUMNS.ended_at.is_(None))
        .values(ended_at=now, ended_by=by)
    )
    carried, token = tables.break_glass_token.c, tables.access_token.c
    tokens = select(carried.jti).where(carried.break_glass.in_(cases))
    connection.execute(
        update(tables.access_token).where(token.jti.in_(tokens), token.revoked_at.is_(None)).values(revoked_at=now)
    )


def record_refusal(connection: Connection, account: Account, rules: Sequence[str], address: str | None) -> None:
    """Leave an audit event of emergency access that was refused; what was typed is not in it."""
    event = SecurityEvent(
        WHAT,
        REFUSED,
        account=account.name,
        fhir_user=account.fhir_user,
        address=address,
        reason=" ".join(rules),
    )
    record(connection, event)


def _note(
    connection: Connection, what: str, who: Account, case: BreakGlassCase, reason: str, address: str | None = None
) -> None:
    event = SecurityEvent(
        what,
        SUCCESS,
        account=who.name,
        fhir_user=who.fhir_user,
        patient=case.patient,
        address=address,
        reason=reason,
        concerns=case.account if case.account != who.name else None,
        break_glass=str(case.id),
    )
    record(connection, event)
