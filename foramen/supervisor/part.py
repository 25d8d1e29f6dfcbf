"""One supervised process: its command, how to see that it is ready, and when to try again."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_HEALTHY_S = 60.0
_LOG_LIMIT_BYTES = 20_000_000


def _die_with_parent() -> None:
    """Ask Linux to end this child when the supervisor dies, even by SIGKILL (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Part:
    """A supervised process."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log_file: Path
    is_ready: Callable[[], bool]
    stop_timeout_s: float = 20.0
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    restarts: int = 0
    ready: bool = False
    _wait_s: float = field(default=_FIRST_WAIT_S, repr=False)

    def start(self) -> None:
        """Start the process in a group of its own (Ctrl-C reaches the supervisor alone)."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_LIMIT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.started_at = time.monotonic()
        self.ready = False

    def poll(self) -> int | None:
        """Exit status when the process has ended, else None."""
        return None if self.process is None else self.process.poll()

    def schedule_restart(self, now: float) -> float:
        """Decide when to start again: doubling waits, reset after a healthy minute. Returns the wait in seconds."""
        if now - self.started_at > _HEALTHY_S:
            self._wait_s = _FIRST_WAIT_S
        wait = self._wait_s
        self._wait_s = min(self._wait_s * 2, _LONGEST_WAIT_S)
        self.restart_at, self.process, self.ready = now + wait, None, False
        self.restarts += 1
        return wait

    def terminate(self) -> None:
        """Ask the process to stop."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait_stopped(self) -> bool:
        """Wait for the end; kill what does not stop in time. Returns whether it stopped by itself."""
        if self.process is None:
            return True
        try:
            self.process.wait(self.stop_timeout_s)
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
