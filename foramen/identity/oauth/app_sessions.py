"""Which apps a session was opened in, each under a `sid` of its own: those that want to be told when it ends.

OpenID Connect Back-Channel Logout 1.0 §2.1 (`sid`); it stays the same however often the app asks in one session.
"""

from __future__ import annotations

import uuid

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.oauth.clients import Client
from foramen.identity.people.sessions import Session


def open_app(connection: Connection, session: Session, client: Client) -> uuid.UUID | None:
    """Return the `sid` of an app in a session, new or known; None for an app that is not to be told."""
    if client.logout_uri is None:
        return None
    opened = tables.app_session.c
    made = insert(tables.app_session).values(
        sid=uuid.uuid4(),
        session_digest=session.session_digest,
        client_id=client.client_id,
        account=session.account.name,
    )
    found: uuid.UUID = connection.execute(
        made.on_conflict_do_update(
            index_elements=["session_digest", "client_id"], set_={"account": session.account.name}
        ).returning(opened.sid)
    ).scalar_one()
    return found
