"""Audit of refusals that cost a stranger nothing: so many of a network and minute one by one, the rest in one event.

NIST SP 800-92 §3.2 (limits on log volume); GB/T 22239 8.1.4.3 (audit records are protected from being pushed out).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.people.throttling import network_of
from foramen.identity.security_event import REFUSED, SecurityEvent

EACH_MINUTE = 20
"""Refusals of one network and minute that are recorded one by one."""
_COUNT = tables.refusal_count.c


def record_refusal(connection: Connection, event: SecurityEvent) -> None:
    """Record a refusal, or count it when its network had enough of them in this minute."""
    now = utc_now()
    network, minute = network_of(event.address) or "", now.replace(second=0, microsecond=0)
    first = insert(tables.refusal_count).values(network=network, minute=minute, refusals=1)
    so_many = connection.execute(
        first.on_conflict_do_update(
            index_elements=["network", "minute"], set_={"refusals": _COUNT.refusals + 1}
        ).returning(_COUNT.refusals)
    ).scalar_one()
    if so_many <= EACH_MINUTE:
        record(connection, event)


def record_rest(connection: Connection, now: datetime) -> int:
    """Record, for minutes that are over, how many refusals were only counted; returns how many events that took."""
    over = now.replace(second=0, microsecond=0) - timedelta(seconds=1)
    counted = connection.execute(
        delete(tables.refusal_count)
        .where(_COUNT.minute < over)
        .returning(_COUNT.network, _COUNT.minute, _COUNT.refusals)
    ).all()
    rest = [row for row in counted if row.refusals > EACH_MINUTE]
    for row in rest:
        said = f"{row.refusals - EACH_MINUTE} more refusals in the minute {row.minute.isoformat(timespec='minutes')}"
        record(connection, SecurityEvent("refusals", REFUSED, address=row.network or None, reason=said))
    return len(rest)
