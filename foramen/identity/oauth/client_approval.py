"""What an administrator decides about a client: approve, reject, disable, enable; a client that loses its right loses
its tokens with it. What is decided on is shown whole, and named by a digest that the decision may be bound to.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-registration.html; RFC 7591 §1.3 (registration by policy)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select, update

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.oauth.client_checks import GRANT_TYPES, check_client
from foramen.identity.oauth.client_metadata import REQUIRE_PUSHED
from foramen.identity.oauth.clients import APPROVED, REJECTED, WITHDRAWN, Client, find_registration
from foramen.identity.oauth.token_families import revoke_client
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.errors import ConflictError, NotFoundError


def described(client: Client) -> dict[str, Any]:
    """Return what an administrator has to see of a client before deciding: where it sends people, what it may do, keys.

    Returns
    -------
    JSON; keys by their thumbprint (RFC 7638, SHA-256) and kid, never a secret. `digest` names all of it.
    """
    keys = client.keys().keys if client.jwks else []
    shown: dict[str, Any] = {
        "client_id": client.client_id,
        "client_name": client.name_en,
        "token_endpoint_auth_method": client.auth_method,
        "scope": client.scope,
        "grant_types": list(client.grant_types) if client.grant_types is not None else _implied_grants(client),
        "redirect_uris": list(client.redirect_uris),
        "launch_url": client.launch_url,
        "jwks_uri": client.jwks_uri,
        "keys": [{"kid": key.kid, "thumbprint": key.thumbprint()} for key in keys],
        REQUIRE_PUSHED: client.require_pushed,
        "first_party": client.first_party,
        "metadata": client.metadata,
    }
    text = json.dumps(shown, sort_keys=True, ensure_ascii=True)
    return {**shown, "digest": hashlib.sha256(text.encode()).hexdigest()}


def _implied_grants(client: Client) -> list[str]:
    return [grant for grant in GRANT_TYPES if client.check_grant_type(grant)]


def find_described(connection: Connection, client_id: str) -> dict[str, Any]:
    """Return `described` of a client that is not disabled.

    Raises
    ------
    NotFoundError
        There is no such client.
    """
    return described(_found(connection, client_id))


def approve_client(
    connection: Connection, client_id: str, *, by: str | None = None, scope: str | None = None, seen: str | None = None
) -> Client:
    """Approve a registration, with the scopes it asked for or others; it cannot change meanwhile.

    Parameters
    ----------
    by : account of the administrator; None at the command line
    scope : scopes in place of those asked for
    seen : `digest` of what the administrator was shown; without it, whatever is registered now is approved

    Returns
    -------
    The client as it was approved.

    Raises
    ------
    NotFoundError
        There is no such client.
    ConflictError
        The client withdrew its registration, or has changed since it was shown.
    InvalidRequestError
        A scope means nothing here.
    """
    client = _found(connection, client_id)
    if client.status == WITHDRAWN:
        raise ConflictError("The client withdrew its registration")
    if seen is not None and seen != described(client)["digest"]:
        raise ConflictError("The registration is not what was shown; look at it again")
    if scope is not None:
        client = replace(client, scope=" ".join(scope.split()))
        check_client(client)
    _decide(connection, client_id, APPROVED, by, scope=client.scope)
    return replace(client, status=APPROVED)


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
    """Return a client and keep it as it is until the transaction ends: its owner may be changing it just now."""
    connection.execute(
        select(tables.client.c.client_id).where(tables.client.c.client_id == client_id).with_for_update()
    )
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
