"""Budgets, by address and over all: of failed sign-ins, against guessing across many accounts (password spraying), and
of what costs us much and a stranger nothing.

OWASP Credential Stuffing Prevention; NIST SP 800-63B §3.2.2. A leaky bucket in PostgreSQL, so that all processes share
it. Only failures are counted. An address past its budget waits, twice as long each time. When failures everywhere
(many addresses at once) pass their budget, each address may fail only a few times: nobody who has not failed waits, so
an attacker cannot lock everybody out.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.kernel.settings import Settings

LONGEST_WAIT_S = 900
_FORGOTTEN_AFTER = timedelta(days=1)
_EVERYWHERE = "everywhere"
_HOUR_S = 3600.0
_ADDRESS_LEAK_S, _EVERYWHERE_LEAK_S = 3000.0, 600.0  # time in which a full budget empties
_STRICT_SHARE = 10  # an address's budget is divided by this while failures everywhere are too many


@dataclass(frozen=True, slots=True)
class Bucket:
    """State of one budget: failures not yet leaked away at `counted_at`."""

    level: float
    counted_at: datetime
    blocked_until: datetime

    def level_at(self, now: datetime, limit: int, leak_s: float) -> float:
        """Failures that still count."""
        leaked = max(0.0, (now - self.counted_at).total_seconds()) * limit / leak_s
        return max(0.0, self.level - leaked)


def after_failure(bucket: Bucket | None, now: datetime, limit: int, allowed: int, leak_s: float) -> Bucket:
    """Count one failure; past `allowed`, the wait doubles with each further one."""
    level = (bucket.level_at(now, limit, leak_s) if bucket else 0.0) + 1
    excess = level - allowed
    wait_s = min(float(LONGEST_WAIT_S), 2.0 ** min(excess, 30)) if excess > 0 else 0.0
    return Bucket(level, now, now + timedelta(seconds=wait_s))


def network_of(address: str | None) -> str | None:
    """Return the network that is one party to us: an IPv4 address, an IPv6 network of /64; None when there is none.

    Each host of a /64 can take any address in it (RFC 4291 §2.5.1, RFC 8981). `::ffff:a.b.c.d` is the IPv4 address.
    """
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def address_budget(address: str | None) -> str:
    """Name the budget of an address."""
    return f"address {network_of(address) or 'unknown'}"


def wait_s(connection: Connection, address: str | None, now: datetime) -> int:
    """Return how many seconds this address has to wait before a password or code of it is looked at; 0: none."""
    column = tables.failure_budget.c
    until = connection.execute(
        select(column.blocked_until).where(column.budget == address_budget(address))
    ).scalar_one_or_none()
    return math.ceil(max(0.0, (until - now).total_seconds())) if until is not None else 0


def count_failure(connection: Connection, settings: Settings, address: str | None, now: datetime) -> bool:
    """Count a failed sign-in of an address and over all; returns whether the address has to wait from now on."""
    everywhere_limit = settings.sign_in_failures_everywhere
    everywhere = _count(connection, _EVERYWHERE, now, everywhere_limit, everywhere_limit, _EVERYWHERE_LEAK_S)
    limit = settings.sign_in_failures_per_address
    under_attack = everywhere.level > everywhere_limit
    allowed = max(1, limit // _STRICT_SHARE) if under_attack else limit
    return _count(connection, address_budget(address), now, limit, allowed, _ADDRESS_LEAK_S).blocked_until > now


def spend(connection: Connection, what: str, address: str | None, now: datetime, an_hour: int) -> bool:
    """Take one from the budget that a network has for something; False when nothing is left.

    Parameters
    ----------
    what : names the budget
    an_hour : how many there are, and how many come back in an hour
    """
    return _count(connection, f"{what} {network_of(address)}", now, an_hour, an_hour, _HOUR_S).level <= an_hour


def _count(connection: Connection, budget: str, now: datetime, limit: int, allowed: int, leak_s: float) -> Bucket:
    table, column = tables.failure_budget, tables.failure_budget.c
    empty = {"level": 0.0, "counted_at": now, "blocked_until": now, "expires_at": now + _FORGOTTEN_AFTER}
    connection.execute(insert(table).values(budget=budget, **empty).on_conflict_do_nothing())
    row = connection.execute(
        select(column.level, column.counted_at, column.blocked_until).where(column.budget == budget).with_for_update()
    ).one()
    bucket = after_failure(Bucket(*row), now, limit, allowed, leak_s)
    connection.execute(
        table.update()
        .where(column.budget == budget)
        .values(
            level=bucket.level,
            counted_at=now,
            blocked_until=bucket.blocked_until,
            expires_at=now + _FORGOTTEN_AFTER,
        )
    )
    return bucket
