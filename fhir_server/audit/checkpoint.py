"""Signed checkpoints: the chain's head at a moment, as a JWS that can be kept on another machine. ADR 0022.

https://www.rfc-editor.org/rfc/rfc7515
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from foramen.kernel.crypto import SignatureError, StatementSigner, verified_statement
from foramen.kernel.secret_files import read_or_create_key

KIND = "foramen-audit-checkpoint+jws"
_KEY = "audit-checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Block and digest of the head, the number of events sealed until then, who signed and when."""

    server: str
    at: datetime
    block: int
    digest: str
    events: int

    def sign(self, signer: StatementSigner) -> str:
        """Return the compact JWS."""
        claims = {
            "iss": self.server,
            "iat": int(self.at.timestamp()),
            "block": self.block,
            "digest": self.digest,
            "events": self.events,
        }
        return signer.sign(orjson.dumps(claims))


def checkpoint_signer(home: Path) -> StatementSigner:
    """Return the signer of checkpoints; its key is used for nothing else."""
    return StatementSigner(read_or_create_key(home, _KEY), KIND)


def checkpoint_key(home: Path) -> dict[str, Any] | None:
    """Return the public key of this installation's checkpoints, or None when none was signed yet."""
    if not (home / "secrets" / f"{_KEY}.jwk.json").is_file():
        return None
    return checkpoint_signer(home).public()


def read_checkpoint(text: str, key: dict[str, Any]) -> Checkpoint:
    """Read a signed checkpoint.

    Raises
    ------
    SignatureError
        The signature does not fit, or what was signed is no checkpoint.
    """
    try:
        claims = orjson.loads(verified_statement(text, key, KIND))
        at = datetime.fromtimestamp(claims["iat"], UTC)
        return Checkpoint(claims["iss"], at, int(claims["block"]), claims["digest"], int(claims["events"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise SignatureError("What was signed is no checkpoint") from exc


def file_name(at: datetime, block: int) -> str:
    """Name of a checkpoint's file; names sort by time."""
    return f"checkpoint-{at:%Y%m%dT%H%M%SZ}-{block}.jws"
