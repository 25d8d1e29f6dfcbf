"""Where data keys come from: a file of generations, read again when it changed, so that a rotation needs no restart.

A new generation is in the file some seconds before it seals (`PUBLISH_AHEAD_S`): every process can open what it sealed.
Writers hold a lock file; a reader sees the old file or the new one, never a part (rename).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from foramen.kernel.crypto.generations import Generation, current, new_generation, opened, parse, text_of, wrapped
from foramen.kernel.crypto.key_wrapping import KeyWrapping, KeyWrappingError
from foramen.kernel.errors import ConflictError, InteropError, NotFoundError, UpstreamError
from foramen.kernel.secret_files import file_lock, read_private, replace_private, write_once

PUBLISH_AHEAD_S = 3.0
_LOOK_EVERY_S = 1.0
_AFTER_FAILURE_S = 5.0


@dataclass(frozen=True, slots=True)
class DataKey:
    """A secret of 32 bytes from which ciphers derive their keys, and its id."""

    id: str
    secret: bytes = field(repr=False)


class KeyProvider(Protocol):
    """Gives the key that seals now and finds the one that has sealed."""

    def current(self) -> DataKey:
        """Return the key that seals now."""

    def find(self, key_id: str) -> DataKey | None:
        """Return a key by its id; None: there is none. Raises `UpstreamError` when that cannot be told now."""

    def refresh(self) -> bool:
        """Take over what has changed since; returns whether anything did."""


class RingFile:
    """The file of generations.

    Parameters
    ----------
    own : it lies under FORAMEN_HOME/secrets, is made on first use and must not be open to everybody; otherwise it is
        the operator's, who answers for its rights (secrets of containers are often readable by all)
    """

    def __init__(self, path: Path, *, own: bool) -> None:
        self.path, self._own = path, own

    def read(self) -> list[Generation]:
        """Return the generations, oldest first.

        Raises
        ------
        InteropError
            The file is absent, open to everybody, or cannot be understood.
        """
        try:
            return parse(read_private(self.path) if self._own else self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise InteropError("The file of data keys cannot be read") from exc

    def create(self, wrapping: KeyWrapping | None) -> None:
        """Make the first generation when there is no file of ours yet."""
        if self._own and not self.path.exists():
            now = time.time()
            write_once(self.path, text_of([replace(new_generation(now, now, wrapping), resealed=True)]))

    def stamp(self) -> tuple[int, int, int]:
        """Tell one state of the file from another."""
        try:
            status = self.path.stat()
        except OSError as exc:
            raise InteropError("The file of data keys cannot be read") from exc
        return status.st_ino, status.st_mtime_ns, status.st_size

    def change(self, how: Callable[[list[Generation]], Sequence[Generation]]) -> list[Generation]:
        """Replace the generations under the lock.

        Raises
        ------
        InteropError
            The file cannot be read or written.
        """
        try:
            with file_lock(self.path.with_name(f".{self.path.name}.lock")):
                changed = list(how(self.read()))
                replace_private(self.path, text_of(changed))
                return changed
        except OSError as exc:
            raise InteropError("The file of data keys cannot be written") from exc

    def add(self, wrapping: KeyWrapping | None, ahead_s: float = PUBLISH_AHEAD_S) -> Generation:
        """Add a generation that seals in `ahead_s` seconds. When one was wrapped and no KMS is set, that is refused."""

        def added(known: list[Generation]) -> list[Generation]:
            if wrapping is None and any(one.wrapped_by for one in known):
                raise KeyWrappingError("The data keys are wrapped by a KMS, and no KMS command is set")
            now = time.time()
            return [*known, new_generation(now, max(now + ahead_s, known[-1].seals_from + 0.001), wrapping)]

        return self.change(added)[-1]

    def wrap(self, wrapping: KeyWrapping) -> list[Generation]:
        """Wrap every generation, those that are wrapped already anew (a new version of the key-encryption key)."""
        return self.change(lambda known: [wrapped(one, wrapping) for one in known])

    def mark_resealed(self, generation_id: str) -> None:
        """Note that everything stored was sealed again with a generation."""
        self.change(lambda known: [replace(one, resealed=True) if one.id == generation_id else one for one in known])

    def drop(self, generation_id: str, not_before_s: float) -> None:
        """Forget an old generation.

        Raises
        ------
        NotFoundError
            There is no such generation.
        ConflictError
            It seals, will seal, or sealed until less than `not_before_s` seconds ago.
        """

        def dropped(known: list[Generation]) -> list[Generation]:
            if all(one.id != generation_id for one in known):
                raise NotFoundError("There is no such generation of data keys")
            seals = current(known, time.time())
            old = next(one for one in known if one.id == generation_id)
            if old.seals_from >= seals.seals_from or time.time() - seals.seals_from < not_before_s:
                raise ConflictError("This generation seals, or did a short while ago")
            return [one for one in known if one.id != generation_id]

        self.change(dropped)


class KeyRing:
    """A `KeyProvider` over a file. Whatever cannot be opened at the start stops the start (`KeyWrappingError`)."""

    def __init__(self, file: RingFile, wrapping: KeyWrapping | None) -> None:
        self.file, self._wrapping = file, wrapping
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._looked_at = self._failed_at = float("-inf")
        self._generations: list[Generation] = []
        self._keys: dict[str, DataKey] = {}
        file.create(wrapping)
        self.refresh()

    def current(self) -> DataKey:
        """Return the key that seals now."""
        # With a KMS the file is read again by `refresh` alone, which may wait: this is called where nothing may.
        if self._wrapping is None and time.monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self._try_refresh()
        return self._keys[current(self._generations, time.time()).id]

    def find(self, key_id: str) -> DataKey | None:
        """Return a key by its id, looking into the file once when it is new to this process.

        Raises
        ------
        UpstreamError
            The file has changed and cannot be read now.
        """
        found = self._keys.get(key_id)
        if found is None and not self._try_refresh():
            raise UpstreamError("The data keys cannot be read now")
        return found or self._keys.get(key_id)

    def all(self) -> list[DataKey]:
        """Every key, the newest first."""
        return [self._keys[one.id] for one in reversed(self._generations)]

    def refresh(self) -> bool:
        """Read the file again if it changed; returns whether it did.

        Raises
        ------
        InteropError
            It cannot be read, or a key in it cannot be opened; the keys known so far stay.
        """
        with self._lock:
            self._looked_at = time.monotonic()
            stamp = self.file.stamp()
            if stamp == self._stamp:
                return False
            try:
                generations = self.file.read()
                keys = {one.id: self._keys.get(one.id) or self._open(one) for one in generations}
            except InteropError:
                self._failed_at = time.monotonic()
                raise
            self._generations, self._keys, self._stamp = generations, {**keys}, stamp
            return True

    def _open(self, one: Generation) -> DataKey:
        return DataKey(one.id, opened(one, self._wrapping))

    def _try_refresh(self) -> bool:
        """Refresh, not sooner than some seconds after a failure: a KMS that is away must not be asked by everybody."""
        if time.monotonic() - self._failed_at < _AFTER_FAILURE_S:
            return False
        try:
            self.refresh()
        except InteropError:
            self._failed_at = time.monotonic()
            return False
        return True


class FixedKeys:
    """A `KeyProvider` over keys at hand, the first of which seals."""

    def __init__(self, keys: Sequence[DataKey]) -> None:
        self._keys = tuple(keys)

    def current(self) -> DataKey:
        """Return the first key."""
        return self._keys[0]

    def find(self, key_id: str) -> DataKey | None:
        """Return a key by its id."""
        return next((key for key in self._keys if key.id == key_id), None)

    def refresh(self) -> bool:
        """Nothing ever changes."""
        return False
