"""A part that dies is started again with growing waits."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from foramen.supervisor.part import Part


def part(tmp_path: Path, code: str) -> Part:
    return Part("sleeper", [sys.executable, "-c", code], {}, tmp_path / "log", lambda: True, stop_timeout_s=2)


def test_waits_double_and_end_at_thirty_seconds(tmp_path: Path) -> None:
    sleeper = part(tmp_path, "pass")
    sleeper.started_at = now = time.monotonic()
    assert [sleeper.schedule_restart(now) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_healthy_minute_resets_the_wait(tmp_path: Path) -> None:
    sleeper = part(tmp_path, "pass")
    sleeper.started_at = now = time.monotonic()
    sleeper.schedule_restart(now)
    sleeper.schedule_restart(now)
    assert sleeper.schedule_restart(now + 61) == 0.5


def test_a_part_stops_when_asked(tmp_path: Path) -> None:
    sleeper = part(tmp_path, "import time; time.sleep(60)")
    sleeper.start()
    sleeper.terminate()
    assert sleeper.wait_stopped()


def test_a_deaf_part_is_killed(tmp_path: Path) -> None:
    sleeper = part(
        tmp_path, "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    sleeper.start()
    while b"deaf" not in (tmp_path / "log").read_bytes():
        time.sleep(0.02)
    sleeper.terminate()
    assert not sleeper.wait_stopped()
    assert sleeper.poll() is not None
