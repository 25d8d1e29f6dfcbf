"""Authorization requests that a client sent us directly: kept for a minute, good once, for that client (RFC 9126).

https://www.rfc-editor.org/rfc/rfc9126 §2.2 (request_uri), §7.3 (one-time use)
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, delete

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.opaque_tokens import digest, new_opaque_token

PREFIX = "urn:ietf:params:oauth:request_uri:"
LIFETIME_S = 60


def save_pushed_request(connection: Connection, client_id: str, parameters: dict[str, str]) -> str:
    """Store a validated request and return its `request_uri`."""
    token = new_opaque_token()
    connection.execute(
        tables.pushed_request.insert().values(
            request_uri_digest=digest(token),
            client_id=client_id,
            parameters=parameters,
            expires_at=utc_now() + timedelta(seconds=LIFETIME_S),
        )
    )
    return f"{PREFIX}{token}"


def take_pushed_request(connection: Connection, client_id: str, request_uri: str) -> dict[str, str] | None:
    """Return the parameters behind a `request_uri` and forget it; None when unknown, used, over or another client's."""
    columns = tables.pushed_request.c
    return connection.execute(
        delete(tables.pushed_request)
        .where(
            columns.request_uri_digest == digest(request_uri.removeprefix(PREFIX)),
            columns.client_id == client_id,
            columns.expires_at > utc_now(),
        )
        .returning(columns.parameters)
    ).scalar_one_or_none()
