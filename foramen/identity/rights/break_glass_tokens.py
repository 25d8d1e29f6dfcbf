"""What tokens carry of emergency access: the claim `break_glass` of access tokens of the session it was started in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from foramen.identity import tables
from foramen.identity.people.accounts import Account
from foramen.identity.rights.break_glass_cases import PERMISSION, BreakGlassCase, current_case, refused_rules, standing
from foramen.identity.rights.permissions import Rights


def carried(
    connection: Connection,
    account: Account,
    rights: Rights,
    session_digest: str | None,
    patient: str | None,
    now: datetime,
) -> BreakGlassCase | None:
    """Return the emergency access that a token being issued carries, or None.

    The account's row is locked by `rights_of`: an end of it waits for the token, and revokes it.

    Parameters
    ----------
    session_digest : session the token lives and ends with; what was granted offline has none, and never carries it
    patient : launch context
    """
    if session_digest is None or PERMISSION not in rights.permissions:
        return None
    case = current_case(connection, account.name, now)
    if case is None:
        return None
    question = {
        **standing(connection, account),
        "case": {
            "account": case.account,
            "session": case.session_digest,
            "patient": case.patient,
            "running": case.in_force(now) and (case.until - now).total_seconds() >= 1,
        },
        "token": {"account": account.name, "session": session_digest, "patient": patient},
    }
    return None if refused_rules("carry", question) else case


def claim(case: BreakGlassCase) -> dict[str, Any]:
    """Return the claim of access tokens (`foramen.kernel.tokens` reads it)."""
    return {"id": str(case.id), "patient": case.patient, "until": int(case.until.timestamp())}


def lifetime_s(case: BreakGlassCase, now: datetime, usual_s: int) -> int:
    """Return how long a token that carries it may live: no longer than it lasts."""
    return max(1, min(usual_s, int(case.until.timestamp()) - int(now.timestamp())))


def note_token(connection: Connection, jti: str, case: BreakGlassCase) -> None:
    """Remember that an access token carries it."""
    connection.execute(tables.break_glass_token.insert().values(jti=jti, break_glass=case.id))
