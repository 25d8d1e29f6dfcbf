"""How long an account, or one in a browser it is known in, is locked after failures: locks double up to a bound. Pure.

OWASP Authentication Cheat Sheet (account lock-out with exponential delay); NIST SP 800-63B §3.2.2
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_FAILED_ATTEMPTS = 5
LOCK_FOR, LONGEST_LOCK = timedelta(minutes=15), timedelta(hours=4)
_FORGIVEN_AFTER = timedelta(days=1)
"""After so long without a further lock the next one is short again."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Failed attempts since the last success or lock, the end of the lock, and how many locks came one after another.

    `until` stays after the lock is over: it says when the last one ended.
    """

    attempts: int = 0
    until: datetime | None = None
    locks: int = 0

    def holds(self, now: datetime) -> bool:
        """Whether nothing may be tried now."""
        return self.until is not None and self.until > now


def after_attempt(lock: Lock, now: datetime) -> Lock:
    """Count one attempt that nobody has looked at yet; the fifth locks. A lock that holds is left as it is."""
    if lock.holds(now):
        return lock
    locks, attempts = lock.locks, lock.attempts + 1
    if lock.until is not None:  # the last lock is over: counting starts again
        attempts = 1 if lock.attempts >= MAX_FAILED_ATTEMPTS else attempts
        locks = 0 if now - lock.until >= _FORGIVEN_AFTER else locks
    if attempts < MAX_FAILED_ATTEMPTS:
        return Lock(attempts, lock.until, locks)
    return Lock(attempts, now + lock_time(locks), locks + 1)


def lock_time(locks: int) -> timedelta:
    """Return how long the next lock lasts after so many."""
    return min(LONGEST_LOCK, LOCK_FOR * (1 << min(locks, 10)))
