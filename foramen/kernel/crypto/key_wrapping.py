"""Wrap data keys with a key-encryption key that somebody else holds: an external command in front of a KMS or HSM.

Envelope encryption, NIST SP 800-57 part 1 §6.2.2. The command is run without a shell and speaks JSON, base64 for bytes:

    COMMAND wrap     {"key": …, "context": …}                   →  {"kek": name, "wrapped": …}
    COMMAND unwrap   {"kek": name, "wrapped": …, "context": …}  →  {"key": …}

`context` is to be bound as associated data where the KMS can. Key material goes through standard input and output only;
neither these nor standard error ever reach a log or an error of ours.
"""

from __future__ import annotations

import base64
import binascii
import json
import shlex
import subprocess
from dataclasses import dataclass, field
from typing import Any, Protocol

from foramen.kernel.crypto.digests import same
from foramen.kernel.errors import UpstreamError

_LONGEST_ANSWER = 65_536
_LONGEST_NAME = 200


class KeyWrappingError(UpstreamError):
    """A key could not be wrapped or unwrapped: what needs it is refused, nothing is ever kept or used plain instead."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key as the key-encryption key `kek` has wrapped it."""

    kek: str
    wrapped: bytes = field(repr=False)


class KeyWrapping(Protocol):
    """Whoever holds the key-encryption key."""

    def wrap(self, key: bytes, context: str) -> WrappedKey:
        """Wrap a key; raises `KeyWrappingError`."""

    def unwrap(self, wrapped: WrappedKey, context: str) -> bytes:
        """Return the key; raises `KeyWrappingError`."""


@dataclass(frozen=True)
class KmsCommand:
    """An external command.

    Parameters
    ----------
    command : program and arguments, as a shell would split them
    timeout_s : seconds after which it is killed and counts as failed
    """

    command: str = field(repr=False)
    timeout_s: float

    def wrap(self, key: bytes, context: str) -> WrappedKey:
        """Let the KMS wrap a key, and ask for it back once: what cannot be unwrapped again must not be kept."""
        answer = self._run("wrap", {"key": _encode(key), "context": context})
        kek = answer.get("kek")
        if not isinstance(kek, str) or not 0 < len(kek) <= _LONGEST_NAME:
            raise KeyWrappingError("The KMS command did not name the key-encryption key")
        made = WrappedKey(kek, _decode(answer.get("wrapped")))
        if key in made.wrapped or not same(self.unwrap(made, context), key):
            raise KeyWrappingError("The KMS command did not wrap the key")
        return made

    def unwrap(self, wrapped: WrappedKey, context: str) -> bytes:
        """Let the KMS unwrap a key."""
        given = {"kek": wrapped.kek, "wrapped": _encode(wrapped.wrapped), "context": context}
        return _decode(self._run("unwrap", given).get("key"))

    def _run(self, action: str, given: dict[str, str]) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [*shlex.split(self.command), action],
                input=json.dumps(given).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            # The exception holds what was given: it must not become the cause of one that is logged.
            raise KeyWrappingError(f"The KMS command did not answer in {self.timeout_s:g} s") from None
        except (OSError, ValueError):
            raise KeyWrappingError("The KMS command cannot be run") from None
        if done.returncode:
            raise KeyWrappingError(f"The KMS command could not {action} a data key (exit status {done.returncode})")
        try:
            answer = json.loads(done.stdout) if len(done.stdout) <= _LONGEST_ANSWER else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise KeyWrappingError("The answer of the KMS command is no JSON object")
        return answer


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _decode(value: object) -> bytes:
    try:
        decoded = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        decoded = b""
    if not decoded:
        raise KeyWrappingError("The answer of the KMS command has no key")
    return decoded
