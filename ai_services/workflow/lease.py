"""Which workers are alive: each gives a sign of life in the database; a Task of one that gives none is lost (stage 4).

Times are the database's, so that clocks of several hosts may differ. A worker that was only cut off for a while finds
at its next write that its Task has another run, and stops: two workers never both write.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import psycopg

from foramen.kernel.log import get_log

_BEATS_A_LEASE = 6
_FORGET_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Sign:
    """What a worker says about itself."""

    worker_id: str
    device: str
    queue: str


def give_sign(database_url: str, sign: Sign) -> None:
    """Write a sign of life; rows of workers that were silent for a day go."""
    with psycopg.connect(database_url, connect_timeout=5) as connection:
        connection.execute(
            """INSERT INTO ai.worker (worker_id, device, queue) VALUES (%s, %s, %s)
               ON CONFLICT (worker_id) DO UPDATE
               SET beat_at = now(), device = excluded.device, queue = excluded.queue""",
            (sign.worker_id, sign.device, sign.queue),
        )
        connection.execute("DELETE FROM ai.worker WHERE beat_at < now() - make_interval(secs => %s)", (_FORGET_S,))


def alive(database_url: str, lease_s: float) -> frozenset[str]:
    """Workers that gave a sign of life within the lease."""
    with psycopg.connect(database_url, connect_timeout=5) as connection:
        rows = connection.execute(
            "SELECT worker_id FROM ai.worker WHERE beat_at > now() - make_interval(secs => %s)", (lease_s,)
        ).fetchall()
    return frozenset(str(row[0]) for row in rows)


class Keeper:
    """Gives signs of life in a thread of its own, as long as the worker's loop goes round.

    A loop that hangs is no life: the signs stop when `went_round` was not called for two leases.
    """

    def __init__(self, database_url: str, sign: Sign, lease_s: float) -> None:
        self._url, self._sign, self._lease_s = database_url, sign, lease_s
        self._round_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Give the first sign now, so that no Task is claimed without one.

        Raises
        ------
        psycopg.Error
            The database does not answer, or was not brought up to date yet.
        """
        give_sign(self._url, self._sign)
        self._thread.start()

    def went_round(self) -> None:
        """The worker's loop lives."""
        self._round_at = time.monotonic()

    def stop(self) -> None:
        """Give no more signs."""
        self._stopping.set()

    def _run(self) -> None:
        silent = False
        while not self._stopping.wait(self._lease_s / _BEATS_A_LEASE):
            if time.monotonic() - self._round_at > 2 * self._lease_s:
                continue
            try:
                give_sign(self._url, self._sign)
                silent = False
            except psycopg.Error as exc:
                if not silent:
                    get_log().warning("no sign of life could be given", reason=type(exc).__name__)
                silent = True
