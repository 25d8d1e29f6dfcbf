"""One after the other, over all processes of an installation: PostgreSQL's advisory locks.

https://www.postgresql.org/docs/18/explicit-locking.html#ADVISORY-LOCKS
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

TURN = 0x666F72616D656E02
"""Moves, recalls, sweeps and unpacking of one installation take turns, file by file."""
ONE_COMMAND = 0x666F72616D656E03
"""Two commands at once that pack or offload would write the same staged files."""


@contextmanager
def held(connection: psycopg.Connection[Any], number: int) -> Iterator[None]:
    """Hold a lock of this number; what the connection has begun and not committed by the end is rolled back."""
    connection.execute("SELECT pg_advisory_lock(%s)", (number,))
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute("SELECT pg_advisory_unlock(%s)", (number,))
        connection.commit()
