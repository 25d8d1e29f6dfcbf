"""The newest head that this machine sealed, in a file outside the database: `FORAMEN_HOME/audit/head.json`.

Who can cut the chain off or exchange it cannot write this file, so the two contradict each other. ADR 0022, 0029.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fhir_server.audit.chain import Head
from foramen.kernel.log import get_log

HEAD_FILE = "head.json"


@dataclass(frozen=True, slots=True)
class KeptHead:
    """A head as it was kept: number and digest (hex) of the block, and the chain it is of ("": not written down)."""

    block: int
    digest: str
    chain: str = ""


def kept_head(text: bytes) -> KeptHead:
    """Read the content of the file.

    Raises
    ------
    ValueError
        These are no words of ours.
    """
    data: Any = orjson.loads(text)
    if not isinstance(data, dict) or not isinstance(data.get("block"), int) or not isinstance(data.get("digest"), str):
        raise ValueError("no head of a chain")
    return KeptHead(data["block"], data["digest"], str(data.get("chain", "")))


class HeadFile:
    """The file, read and written by every process of this machine that seals."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HEAD_FILE
        self._said_damaged = False

    def read(self) -> KeptHead | None:
        """Return what was kept, or None: nothing, or it cannot be read (which `foramen audit verify` reports)."""
        try:
            return kept_head(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            if not self._said_damaged:
                self._said_damaged = True
                get_log().error("the file with the head of the audit chain is damaged", exception=type(exc).__name__)
            return None

    def keep(self, head: Head, chain: str, told: frozenset[KeptHead] = frozenset()) -> None:
        """Write the head down.

        An earlier one of the same chain is replaced, and one in `told`: that it is missing stands in the chain itself.
        Anything else stays, so that it goes on contradicting the database.
        """
        kept = self.read()
        if kept is None and self._path.is_file():
            return
        same_chain = kept is not None and kept.chain in ("", chain)
        if kept is not None and kept not in told and not (same_chain and kept.block <= head.number):
            return
        content = orjson.dumps({"chain": chain, "block": head.number, "digest": head.digest.hex()})
        try:
            write_whole(self._path, content)
        except OSError as exc:
            get_log().error("the head of the audit chain could not be written to a file", exception=type(exc).__name__)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
