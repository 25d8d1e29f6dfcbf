"""Secrets as files under FORAMEN_HOME/secrets, readable by the owner alone; made on first use, never printed.

A file that every account of the machine may read or write is refused. The group's rights are the operator's affair:
Kubernetes gives them to the files of a volume (`fsGroup`).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from joserfc.jwk import ECKey

from foramen.kernel.errors import InteropError

_OTHERS = 0o007


def _stage(path: Path, content: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return staged


def write_once(path: Path, content: str) -> str:
    """Write a file that must not exist; whoever loses the race reads the winner's."""
    staged = _stage(path, content)
    try:
        with suppress(FileExistsError):
            os.link(staged, path)
    finally:
        staged.unlink()
    return read_private(path)


def replace_private(path: Path, content: str) -> None:
    """Replace a file as a whole (mode 0600): a crash leaves the old one or the new one."""
    _stage(path, content).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_private(path: Path) -> str:
    """Read a file that must not be open to every account of the machine.

    Raises
    ------
    InteropError
        It is.
    """
    with path.open(encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            raise InteropError(f"The secret file {path.name} is open to every account of this machine: chmod 600 it")
        return file.read()


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file.

    Raises
    ------
    BlockingIOError
        Somebody else holds it and `wait` is false.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def read_or_create_secret(home: Path, name: str) -> str:
    """Return the random secret `name` (256 bits, URL-safe), making it on first use."""
    path = home / "secrets" / name
    if path.exists():
        return read_private(path).strip()
    return write_once(path, secrets.token_urlsafe(32)).strip()


def read_or_create_key(home: Path, name: str, curve: str = "P-256") -> ECKey:
    """Return the private EC key `name`, making it on first use. The key id is its RFC 7638 thumbprint."""
    path = home / "secrets" / f"{name}.jwk.json"
    if path.exists():
        text = read_private(path)
    else:
        key = ECKey.generate_key(curve, private=True)
        text = write_once(path, json.dumps({**key.as_dict(private=True), "kid": key.thumbprint()}))
    return ECKey.import_key(cast(Any, json.loads(text)))
