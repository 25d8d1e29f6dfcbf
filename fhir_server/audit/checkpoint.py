"""Signed checkpoints: the chain's head at a moment, as a JWS that can be kept on another machine. ADR 0022.

https://www.rfc-editor.org/rfc/rfc7515
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from foramen.kernel.crypto import (
    SM2,
    SignatureError,
    Sm2StatementSigner,
    StatementSigner,
    algorithm_of,
    signature_algorithm,
    verified_statement,
)
from foramen.kernel.secret_files import read_or_create_key, read_private, write_once

KIND = "foramen-audit-checkpoint+jws"
_KEY = "audit-checkpoint"
_SM2_KEY = "audit-checkpoint-sm2.pem"
Signer = StatementSigner | Sm2StatementSigner


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Block and digest of the head, the number of events sealed until then, who signed and when."""

    server: str
    at: datetime
    block: int
    digest: str
    events: int

    def sign(self, signer: Signer) -> str:
        """Return the compact JWS."""
        claims = {
            "iss": self.server,
            "iat": int(self.at.timestamp()),
            "block": self.block,
            "digest": self.digest,
            "events": self.events,
        }
        return signer.sign(orjson.dumps(claims))


def checkpoint_signer(home: Path, algorithm: str = "ES256") -> Signer:
    """Return the signer of checkpoints; its key, made on first use, is used for nothing else.

    Raises
    ------
    AlgorithmUnavailableError
        This machine cannot sign with SM2; ES256 never takes its place.
    """
    if algorithm == SM2:
        sm2, path = signature_algorithm(SM2), home / "secrets" / _SM2_KEY
        private = read_private(path) if path.exists() else write_once(path, sm2.new_key().decode())
        return Sm2StatementSigner(private.encode(), KIND)
    return StatementSigner(read_or_create_key(home, _KEY), KIND)


def checkpoint_key(home: Path, algorithm: str = "ES256") -> dict[str, Any] | None:
    """Return the public key of this installation's checkpoints, or None when none was signed yet by this algorithm."""
    names = {"ES256": f"{_KEY}.jwk.json", SM2: _SM2_KEY}
    if algorithm not in names or not (home / "secrets" / names[algorithm]).is_file():
        return None
    return checkpoint_signer(home, algorithm).public()


def own_key_for(text: str, home: Path) -> dict[str, Any] | None:
    """Return the key of this installation that a checkpoint should be signed with; None: it has none such."""
    return checkpoint_key(home, algorithm_of(text))


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
