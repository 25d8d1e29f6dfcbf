"""What an administrator decides about a client: approve, reject, disable, enable; a client that loses its right loses
its tokens with it.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-registration.html; RFC 7591 §1.3 (registration by policy)
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, select, update

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.client_checks import check_client
from foramen.identity.clients import APPROVED, REJECTED, WITHDRAWN, Client, find_registration
from foramen.identity.database import utc_now
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.identity.token_families import revoke_client
from foramen.kernel.errors import ConflictError, NotFoundError


def approve_client(connection: Connection, client_id: str, *, by: str | None = None, scope: str | None = None) -> None:
    """Approve a registration, with the scopes it asked for or others.

    Parameters
    ----------
    by : account of the administrator; None at the command line
    scope : scopes in place of those asked for

    Raises
    ------
    NotFoundError
        There is no such client.
    ConflictError
        The client withdrew its registration.
    InvalidRequestError
        A scope means nothing here.
    """
    client = _found(connection, client_id)
    if client.status == WITHDRAWN:
        raise ConflictError("The client withdrew its registration")
    if scope is not None:
        client = replace(client, scope=" ".join(scope.split()))
        check_client(client)
    _decide(connection, client_id, APPROVED, by, scope=client.scope)


def reject_client(connection: Connection, client_id: str, *, by: str | None = None) -> None:
    """Reject a registration; its tokens, if it was approved before, stop.

    Raises
    ------
    NotFoundError
        There is no such client.
    """
    _found(connection, client_id)
    _decide(connection, client_id, REJECTED, by)
    revoke_client(connection, client_id)


def disable_client(connection: Connection, client_id: str, *, by: str | None = None, disabled: bool = True) -> None:
    """Disable a client, ours or another's, and revoke its tokens; or enable it again.

    Raises
    ------
    NotFoundError
        There is no such client.
    """
    columns = tables.client.c
    changed = connection.execute(
        update(tables.client).where(columns.client_id == client_id).values(disabled=disabled)
    ).rowcount
    if not changed:
        raise NotFoundError("There is no such client")
    if disabled:
        revoke_client(connection, client_id)
    _audit(connection, client_id, by, "disabled" if disabled else "enabled")


def is_disabled(connection: Connection, client_id: str) -> bool:
    """Whether a client is disabled."""
    statement = select(tables.client.c.disabled).where(tables.client.c.client_id == client_id)
    return bool(connection.execute(statement).scalar_one_or_none())


def _found(connection: Connection, client_id: str) -> Client:
    client = find_registration(connection, client_id)
    if client is None:
        raise NotFoundError("There is no such client")
    return client


def _decide(connection: Connection, client_id: str, status: str, by: str | None, **values: str) -> None:
    connection.execute(
        update(tables.client)
        .where(tables.client.c.client_id == client_id)
        .values(status=status, decided_by=by, decided_at=utc_now(), **values)
    )
    _audit(connection, client_id, by, status)


def _audit(connection: Connection, client_id: str, by: str | None, reason: str) -> None:
    event = SecurityEvent("client-approval", SUCCESS, account=by, client_id=client_id, reason=reason)
    record(connection, event)
