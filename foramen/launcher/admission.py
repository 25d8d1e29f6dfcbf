"""Who may use the launcher: asked of the policy on every request; a refusal leaves an audit event."""

from __future__ import annotations

from sqlalchemy import Connection
from starlette.requests import Request

from foramen.identity.audit_outbox import record
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.environment import Environment
from foramen.identity.parameters import client_address
from foramen.identity.people.accounts import Account
from foramen.identity.people.sessions import Session
from foramen.identity.rights.permissions import rights_of
from foramen.identity.security_event import REFUSED, SecurityEvent

PERMISSION = "try-launches"


def admit(env: Environment, connection: Connection, request: Request) -> tuple[Session | None, bool]:
    """Return the session behind a request, and whether its account may try launches now."""
    session = current_session(env, connection, request)
    if session is None:
        return None, False
    allowed = PERMISSION in rights_of(connection, session.account).permissions
    if not allowed:
        note(connection, request, session.account, REFUSED, PERMISSION)
    return session, allowed


def note(connection: Connection, request: Request, account: Account, outcome: str, reason: str) -> None:
    """Leave an audit event of the launcher."""
    event = SecurityEvent(
        what="launcher",
        outcome=outcome,
        account=account.name,
        fhir_user=account.fhir_user,
        address=client_address(request),
        reason=reason,
    )
    record(connection, event)
