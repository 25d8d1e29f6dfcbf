"""What makes audit records tamper-evident: digests of events, and codes that only a holder of the seal's key can make.

ADR 0022. The key is a file under FORAMEN_HOME/secrets, so that who can write the database alone cannot make a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from struct import Struct, pack

from foramen.kernel.crypto import digest_algorithm, same
from foramen.kernel.secret_files import read_or_create_secret

SIZE = 32
"""Bytes of a digest or code."""
SECRET = "audit-seal"  # noqa: S105 - the name of a file
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEAD = Struct(">qiqH").pack
_MARKS = {"SHA-256": b"1", "SM3": b"2"}
_NAMES = {mark: name for name, mark in _MARKS.items()}


class BrokenSealError(Exception):
    """A code does not fit what it stands for: this was not written by a server that holds the key."""


def knows(algorithm: str) -> bool:
    """Whether this version can compute digests of this name; a block or list names its own."""
    return algorithm in _MARKS


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def leaf(algorithm: str, row: int, logical_id: str, version: int, updated: datetime, content: bytes) -> bytes:
    """Digest of one event as it lies in the store: row, version, time, id and the exact bytes."""
    name = logical_id.encode()
    return digest_algorithm(algorithm).digest(_HEAD(row, version, micros(updated), len(name)) + name + content)


def packed(rows: Sequence[int], digests: bytes) -> bytes:
    """Write a list of events (rows, and their digests one after the other) as bytes."""
    return pack(f">i{len(rows)}q", len(rows), *rows) + digests


class Seal:
    """Makes and checks codes. One key a purpose, so that a code of one kind is no code of another.

    Parameters
    ----------
    secret : what the keys are derived from
    algorithm : "SHA-256" or "SM3", for what is written from now on; what was written tells its own
    """

    def __init__(self, secret: str, algorithm: str) -> None:
        self.algorithm = algorithm
        self._current = digest_algorithm(algorithm)
        self._mark = _MARKS[algorithm]
        own = secret.encode()
        self._keys = {
            (name, purpose): digest_algorithm(name).mac(own, f"foramen audit {purpose}".encode())
            for name in _MARKS
            for purpose in ("log", "batch", "block")
        }
        self._log_key = self._keys[algorithm, "log"]

    def group(self, records: bytes) -> bytes:
        """Write a group of the audit log: mark of the algorithm, code, records."""
        return self._mark + self._current.mac(self._log_key, records) + records

    def records(self, group: bytes) -> bytes:
        """Return the records of a group.

        Raises
        ------
        BrokenSealError
            The group was not written by `group`, or was changed.
        """
        name = _NAMES.get(group[:1])
        records = group[1 + SIZE :]
        if name is None or not same(group[1 : 1 + SIZE], digest_algorithm(name).mac(self._keys[name, "log"], records)):
            raise BrokenSealError
        return records

    def code(self, purpose: str, algorithm: str, data: bytes) -> bytes:
        """Return the code of a list that waits ("batch") or of a block's digest ("block").

        Raises
        ------
        ValueError
            The algorithm is unknown here (`knows`).
        """
        return digest_algorithm(algorithm).mac(self._keys[algorithm, purpose], data)

    def fits(self, purpose: str, algorithm: str, data: bytes, code: bytes) -> bool:
        """Whether a code is the one that a holder of the secret made; never by an algorithm that is unknown."""
        return knows(algorithm) and same(self.code(purpose, algorithm, data), code)


_installed: list[Seal] = []


def install(home: Path, algorithm: str) -> Seal:
    """Set the seal of this process; its secret is made on first use."""
    _installed[:] = [Seal(read_or_create_secret(home, SECRET), algorithm)]
    return _installed[0]


def seal() -> Seal:
    """Return the seal of this process.

    Raises
    ------
    RuntimeError
        None was set: nothing may be recorded without one.
    """
    if not _installed:
        raise RuntimeError("no audit seal is set")
    return _installed[0]
