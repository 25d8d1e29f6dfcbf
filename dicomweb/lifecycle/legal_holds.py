"""Legal holds: a study under one cannot be deleted or rejected, whatever retention says, until a person releases it.

What deletes a study asks `require_not_held` in its own transaction. Every change is audited in the transaction of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from foramen.kernel.access_context import AccessContext
from foramen.kernel.audit_event import audit_event
from foramen.kernel.errors import ConflictError, InvalidRequestError, NotFoundError
from foramen.kernel.identifiers import new_trace_id

_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class LegalHold:
    """A hold in force."""

    study_instance_uid: str
    reason: str
    placed_by: str
    placed_at: datetime


def place(connection: psycopg.Connection[Any], study: str, reason: str, who: AccessContext) -> None:
    """Put a study under a hold.

    Raises
    ------
    NotFoundError
        The index does not know the study.
    InvalidRequestError
        There is no reason, or a very long one.
    ConflictError
        It is under one already.
    """
    if not 0 < len(reason.strip()) <= _LONGEST_REASON:
        raise InvalidRequestError("A legal hold needs a reason of at most 500 characters", issue_code="required")
    known = connection.execute(
        "SELECT 1 FROM dicomweb.study WHERE study_instance_uid = %s FOR UPDATE", (study,)
    ).fetchone()
    if known is None:
        raise NotFoundError("There is no such study")
    placed = connection.execute(
        "INSERT INTO dicomweb.legal_hold (study_instance_uid, reason, placed_by) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING RETURNING id",
        (study, reason.strip(), who.subject),
    ).fetchone()
    if placed is None:
        raise ConflictError("The study is under a legal hold already")
    _audit(connection, "legal-hold", study, who)


def release(connection: psycopg.Connection[Any], study: str, who: AccessContext) -> None:
    """End the hold on a study; that there was one stays written.

    Raises
    ------
    NotFoundError
        It is under none.
    """
    done = connection.execute(
        "UPDATE dicomweb.legal_hold SET released_by = %s, released_at = now()"
        " WHERE study_instance_uid = %s AND released_at IS NULL RETURNING id",
        (who.subject, study),
    ).fetchone()
    if done is None:
        raise NotFoundError("The study is under no legal hold")
    _audit(connection, "legal-hold-release", study, who)


def in_force(connection: psycopg.Connection[Any]) -> list[LegalHold]:
    """Return all holds in force, the oldest first."""
    rows = connection.execute(
        "SELECT study_instance_uid, reason, placed_by, placed_at FROM dicomweb.legal_hold"
        " WHERE released_at IS NULL ORDER BY placed_at, id"
    ).fetchall()
    return [LegalHold(*row) for row in rows]


def require_not_held(connection: psycopg.Connection[Any], study: str) -> None:
    """Refuse to remove a study that is under a hold; none can be placed until the transaction ends.

    Raises
    ------
    ConflictError
        It is under one.
    """
    connection.execute("SELECT 1 FROM dicomweb.study WHERE study_instance_uid = %s FOR UPDATE", (study,))
    held = connection.execute(
        "SELECT 1 FROM dicomweb.legal_hold WHERE study_instance_uid = %s AND released_at IS NULL", (study,)
    ).fetchone()
    if held is not None:
        raise ConflictError("The study is under a legal hold")


def _audit(connection: psycopg.Connection[Any], interaction: str, study: str, who: AccessContext) -> None:
    event = audit_event(
        interaction=interaction,
        source="dicomweb",
        status=200,
        recorded=datetime.now(UTC),
        trace_id=new_trace_id(),
        context=who,
        entity=f"urn:oid:{study}",
    )
    connection.execute("INSERT INTO dicomweb.audit_outbox (event) VALUES (%s)", (json.dumps(event),))
