"""An authorization request on its way through sign-in, patient picker and consent; 15 minutes.

Only an opaque id travels through the pages, so that nothing in between can be changed by the browser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, select, update

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.opaque_tokens import digest, new_opaque_token

LIFETIME = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A validated request and what has been settled so far."""

    request_digest: str
    client_id: str
    parameters: dict[str, str]
    session_digest: str | None
    patient: str | None
    consented: list[str] | None
    created_at: datetime
    encounter: str | None = None
    """Empty: the person goes on without one."""
    stored: bool = True
    """Whether it lies in the database: one that is answered at once never does."""


_FIELDS = (
    *("request_digest", "client_id", "parameters", "session_digest", "patient", "consented", "created_at"),
    "encounter",
)


_COLUMNS = tables.authorization_request.c
_INSERT = tables.authorization_request.insert()
_FIND = (
    select(*(_COLUMNS[name] for name in _FIELDS))
    .where(_COLUMNS.request_digest == bindparam("wanted"), _COLUMNS.expires_at > bindparam("now"))
    .with_for_update()
)
_DELETE = delete(tables.authorization_request).where(_COLUMNS.request_digest == bindparam("wanted"))


def new_request(client_id: str, parameters: dict[str, str]) -> tuple[str, PendingRequest]:
    """Return a validated request and its id; `save_request` keeps it when a page has to be shown first."""
    request_id = new_opaque_token()
    pending = PendingRequest(digest(request_id), client_id, parameters, None, None, None, utc_now(), stored=False)
    return request_id, pending


def save_request(connection: Connection, pending: PendingRequest) -> None:
    """Store a new request as it came; what is settled in it is settled by the pages."""
    values = {
        "request_digest": pending.request_digest,
        "client_id": pending.client_id,
        "parameters": pending.parameters,
        "created_at": pending.created_at,
        "expires_at": pending.created_at + LIFETIME,
    }
    connection.execute(_INSERT, values)


def find_request(connection: Connection, request_id: str) -> PendingRequest | None:
    """Return a request that is still on its way; another step of it waits until this one is done."""
    row = connection.execute(_FIND, {"wanted": digest(request_id), "now": utc_now()}).one_or_none()
    return PendingRequest(*row) if row else None


def bind_session(connection: Connection, pending: PendingRequest, session_digest: str) -> PendingRequest:
    """Tie a request to a session; what somebody else settled in it is forgotten."""
    if pending.session_digest == session_digest:
        return pending
    if pending.stored:
        settled = {"session_digest": session_digest, "patient": None, "consented": None, "encounter": None}
        _change(connection, pending, settled)
    return replace(pending, session_digest=session_digest, patient=None, consented=None, encounter=None)


def settle_patient(connection: Connection, pending: PendingRequest, patient: str) -> None:
    """Note the picked patient."""
    _change(connection, pending, {"patient": patient})


def settle_encounter(connection: Connection, pending: PendingRequest, encounter: str) -> None:
    """Note the picked encounter; empty: none."""
    _change(connection, pending, {"encounter": encounter})


def settle_consent(connection: Connection, pending: PendingRequest, scopes: list[str]) -> None:
    """Note which scopes the person agreed to."""
    _change(connection, pending, {"consented": scopes})


def finish_request(connection: Connection, pending: PendingRequest) -> None:
    """Forget a request that was answered."""
    if pending.stored:
        connection.execute(_DELETE, {"wanted": pending.request_digest})


def _change(connection: Connection, pending: PendingRequest, values: Mapping[str, object]) -> None:
    columns = tables.authorization_request.c
    connection.execute(
        update(tables.authorization_request).where(columns.request_digest == pending.request_digest).values(**values)
    )
