"""What a verification needs from outside the chain: the seal, and heads that were kept in files and in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fhir_server.audit.checkpoint import own_key_for, read_checkpoint
from fhir_server.audit.head_file import HEAD_FILE, kept_head
from fhir_server.audit.seal import SECRET, Seal
from fhir_server.audit.verify import Kept, TamperedError, kept_of
from fhir_server.store import audit_chain
from foramen.kernel.crypto import SignatureError
from foramen.kernel.errors import InteropError
from foramen.kernel.secret_files import read_private


def own_seal(home: Path, algorithm: str) -> Seal:
    """Return the seal whose secret lies in `home`; never makes one.

    Raises
    ------
    InteropError
        There is none: nothing can be verified here.
    """
    path = home / "secrets" / SECRET
    if not path.is_file():
        raise InteropError("FORAMEN_HOME/secrets has no audit-seal: verify where the server's secrets are")
    return Seal(read_private(path).strip(), algorithm)


def kept_in(path: Path, home: Path, key: dict[str, Any] | None = None) -> Kept:
    """Return the head of a checkpoint file.

    Raises
    ------
    SignatureError
        It was not signed with `key` (default: this installation's).
    """
    text = path.read_text(encoding="utf-8")
    key = key or own_key_for(text, home)
    if key is None:
        raise SignatureError(f"{path.name}: there is no key to check it with")
    try:
        return kept_of(read_checkpoint(text, key), path.name)
    except SignatureError as exc:
        raise SignatureError(f"{path.name}: {exc.message}") from exc


def kept_by_this_machine(home: Path) -> list[Kept]:
    """Return the last head sealed here and all checkpoints signed here.

    Raises
    ------
    TamperedError
        A file cannot be read.
    SignatureError
        A checkpoint's signature does not fit.
    """
    found = [kept_in(path, home) for path in sorted((home / "audit").glob("checkpoint-*.jws"))]
    head = home / "audit" / HEAD_FILE
    if head.is_file():
        try:
            kept = kept_head(head.read_bytes())
            found.append(Kept(HEAD_FILE, kept.block, kept.digest))
        except ValueError as exc:
            raise TamperedError(f"{HEAD_FILE} cannot be read") from exc
    return found


async def kept_in_table(connection: Any, home: Path) -> list[Kept]:
    """Return the checkpoints of the table.

    Raises
    ------
    SignatureError
        One was not signed by this installation.
    """
    found = []
    for at, block, statement in await audit_chain.checkpoints(connection):
        key = own_key_for(statement, home)
        if key is None:
            raise SignatureError(f"There is no key to check the checkpoint of {at.isoformat()} with")
        try:
            kept = kept_of(read_checkpoint(statement, key), f"the checkpoint of {at:%Y-%m-%d %H:%M:%S}")
        except SignatureError as exc:
            raise SignatureError(f"The checkpoint of {at.isoformat()} was changed") from exc
        if kept.block != block:
            raise TamperedError("The checkpoint's row was changed", at=at)
        found.append(kept)
    return found
