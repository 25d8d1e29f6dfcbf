"""Who is still to be told that a session ended: written in the transaction that ends it (transactional outbox).

https://openid.net/specs/openid-connect-backchannel-1_0.html
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete

from foramen.identity import tables


def tell_apps(connection: Connection, condition: ColumnElement[Any], now: datetime) -> int:
    """Note that the apps opened in some sessions are to be told of their end; returns how many.

    Parameters
    ----------
    condition : on `tables.app_session`
    """
    opened = tables.app_session.c
    ended = connection.execute(
        delete(tables.app_session).where(condition).returning(opened.sid, opened.client_id, opened.account)
    ).all()
    if ended:
        connection.execute(
            tables.logout_notice.insert(),
            [{**row._mapping, "jti": uuid.uuid4(), "created_at": now, "attempts": 0, "next_attempt_at": now}
             for row in ended],
        )  # fmt: skip
    return len(ended)
