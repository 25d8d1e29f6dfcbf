"""Browsers from which a person signed in before: the failures of others keep nobody from signing in there.

OWASP, Slow Down Online Guessing Attacks with Device Cookies. Such a cookie gives no access and spares no password: it
takes its own account, and no other, out of the waits of its address (a hospital behind one NAT) and out of the lock
that strangers put on the account. Failures in such a browser are counted, and lock, there.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from foramen.identity import tables
from foramen.identity.opaque_tokens import digest
from foramen.identity.people.lockout import Lock

LIFETIME = timedelta(days=90)
_KNOWN = tables.known_device.c


def device_cookie(secret: str, session_cookie: str) -> str:
    """Return the device cookie that goes with a session's: another value, from which the session's cannot be found."""
    return hmac.new(secret.encode(), f"device:{session_cookie}".encode(), hashlib.sha256).hexdigest()


def lock_here(connection: Connection, cookie: str | None, account: str, now: datetime) -> Lock | None:
    """Return the failures of an account in a browser that it signed in from; None: it did not. Holds the row."""
    row = connection.execute(
        select(_KNOWN.failed_attempts, _KNOWN.locked_until, _KNOWN.locks)
        .where(_KNOWN.device_digest == digest(cookie or ""), _KNOWN.account == account, _KNOWN.expires_at > now)
        .with_for_update()
    ).one_or_none()
    return Lock(*row) if row else None


def count_here(connection: Connection, cookie: str | None, account: str, lock: Lock) -> None:
    """Write down the failures of an account in a browser; does nothing where it is not known."""
    connection.execute(
        update(tables.known_device)
        .where(_KNOWN.device_digest == digest(cookie or ""), _KNOWN.account == account)
        .values(failed_attempts=lock.attempts, locked_until=lock.until, locks=lock.locks)
    )


def forget_failures(connection: Connection, account: str) -> None:
    """End what failed passwords did to an account in all browsers it is known in."""
    connection.execute(
        update(tables.known_device)
        .where(_KNOWN.account == account)
        .values(failed_attempts=0, locked_until=None, locks=0)
    )


def is_known(connection: Connection, cookie: str | None, account: str, now: datetime) -> bool:
    """Whether the account signed in from this browser before. Asks the same for every name."""
    found = connection.execute(
        select(_KNOWN.account).where(
            _KNOWN.device_digest == digest(cookie or ""), _KNOWN.account == account, _KNOWN.expires_at > now
        )
    ).one_or_none()
    return found is not None


def remember(connection: Connection, replaced: str | None, cookie: str, account: str, now: datetime) -> None:
    """Note that an account signed in from a browser, which gets a new cookie for it.

    A workplace used by several people stays known for each; a cookie that was planted before is worth nothing after.
    """
    if replaced:
        connection.execute(
            update(tables.known_device)
            .where(_KNOWN.device_digest == digest(replaced))
            .values(device_digest=digest(cookie))
        )
    known = insert(tables.known_device).values(device_digest=digest(cookie), account=account, expires_at=now + LIFETIME)
    connection.execute(
        known.on_conflict_do_update(index_elements=["device_digest", "account"], set_={"expires_at": now + LIFETIME})
    )
