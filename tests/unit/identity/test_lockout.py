"""How long an account is locked: the fifth failure locks, the next locks last longer, up to four hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from foramen.identity.people.lockout import LOCK_FOR, LONGEST_LOCK, Lock, after_attempt, lock_time

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def failed(lock: Lock, times: int, now: datetime = NOW) -> Lock:
    for _ in range(times):
        lock = after_attempt(lock, now)
    return lock


def test_the_fifth_failure_locks():
    assert not failed(Lock(), 4).holds(NOW)
    locked = failed(Lock(), 5)
    assert locked.until == NOW + LOCK_FOR
    assert locked.holds(NOW + LOCK_FOR - timedelta(seconds=1))
    assert not locked.holds(NOW + LOCK_FOR)


def test_attempts_while_it_holds_change_nothing():
    locked = failed(Lock(), 5)
    assert failed(locked, 9, NOW + timedelta(minutes=1)) == locked


def test_locks_double_up_to_a_bound():
    lock, now, minutes = Lock(), NOW, []
    for _ in range(7):
        lock = failed(lock, 4, now)
        assert not lock.holds(now), "five tries again after each lock"
        lock = after_attempt(lock, now)
        assert lock.until is not None
        minutes.append((lock.until - now) // timedelta(minutes=1))
        now = lock.until
    assert minutes == [15, 30, 60, 120, 240, 240, 240]


def test_a_day_without_a_lock_is_forgiven():
    twice = failed(failed(Lock(), 5), 5, NOW + LOCK_FOR)
    assert twice.until is not None
    tomorrow = twice.until + timedelta(days=1)
    assert failed(twice, 5, tomorrow).until == tomorrow + LOCK_FOR


@pytest.mark.parametrize("locks", [0, 10, 1000, 10**9])
def test_never_longer_than_the_bound(locks: int):
    assert LOCK_FOR <= lock_time(locks) <= LONGEST_LOCK
