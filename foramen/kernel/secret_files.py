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
from typing import Any, Protocol, cast

from joserfc.jwk import ECKey

from foramen.kernel.errors import InteropError

_OTHERS = 0o007
_SEALED_FORM = "v2:"
"""How every value begins that `foramen.identity.sealing` sealed; no secret does by itself."""
SEALED = frozenset({"signing.jwks.json", "audit-seal", "audit-checkpoint.jwk.json", "audit-checkpoint-sm2.pem"})
"""Files that lie sealed where a KMS is set: keys by which others trust what this installation says (ADR 0031, 0047)."""

_LOCKS = {"signing.jwks.json": ".signing.lock"}
"""What whoever replaces a file holds meanwhile; the others are written once."""


class SealedFileError(InteropError):
    """A file lies sealed, and nobody here can open it."""


class FileSealer(Protocol):
    """Seals the content of secret files; `name` is bound to it, so that files cannot be exchanged."""

    def seal_file(self, name: str, content: str) -> str:
        """Return the sealed form."""

    def open_file(self, name: str, sealed: str) -> str:
        """Return the content; raises `InteropError` where it was changed or its key is not ours."""


_sealers: dict[Path, FileSealer] = {}


def seal_files(home: Path, sealer: FileSealer | None) -> None:
    """Set who seals the `SEALED` files of a home in this process; None: they lie plain."""
    if sealer is None:
        _sealers.pop(home / "secrets", None)
    else:
        _sealers[home / "secrets"] = sealer


def files_sealed_by(home: Path, key_id: str) -> int:
    """Return how many files a key seals."""
    found = (home / "secrets" / name for name in SEALED)
    return sum(_read(path).split(":", 3)[2:3] == [key_id] for path in found if path.exists())


def take_over(home: Path) -> list[str]:
    """Seal what lies plain, and anew what lies sealed, with the key of now; returns the names of the files."""
    done = []
    for name in sorted(SEALED):
        path = home / "secrets" / name
        if path.exists():
            with file_lock(path.with_name(_LOCKS.get(name, f".{name}.lock"))):
                text = _read(path)
                replace_private(path, _opened(path, text) if text.startswith(_SEALED_FORM) else text)
            done.append(name)
    return done


def _sealed(path: Path, content: str) -> str:
    sealer = _sealers.get(path.parent) if path.name in SEALED else None
    return sealer.seal_file(path.name, content) if sealer is not None else content


def _opened(path: Path, text: str) -> str:
    """Return the content; there is no fallback in either direction."""
    if path.name not in SEALED:
        return text
    sealer, sealed = _sealers.get(path.parent), text.startswith(_SEALED_FORM)
    if sealer is None and sealed:
        raise SealedFileError(f"The secret file {path.name} is sealed by keys of a KMS, and no KMS command is set")
    if sealer is None:
        return text
    if not sealed:
        raise InteropError(f"The secret file {path.name} lies unsealed although a KMS command is set: "
                           "run `foramen keys wrap-data`")  # fmt: skip
    return sealer.open_file(path.name, text)


def _stage(path: Path, content: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_sealed(path, content))
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
        It is; or it lies sealed where no KMS is set, or plain where one is.
    """
    return _opened(path, _read(path))


def _read(path: Path) -> str:
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
