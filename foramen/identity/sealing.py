"""Seal small secrets that the database keeps: AES-256-GCM, with the key's id stored beside the value.

NIST SP 800-38D; the keys are lines of a file, the first seals, the others still open what they sealed (rotation).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from foramen.kernel.errors import InteropError
from foramen.kernel.secret_files import read_or_create_secret

_KEY_BYTES, _NONCE_BYTES = 32, 12
_VERSION = "v1"


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@dataclass(frozen=True)
class DataKeys:
    """Keys by id, the current one first."""

    keys: tuple[bytes, ...] = field(repr=False)

    @property
    def current_id(self) -> str:
        """Id of the key that seals now."""
        return key_id(self.keys[0])

    def seal(self, plain: bytes, purpose: str) -> str:
        """Seal a value; `purpose` says whose and what it is and is needed to open it, so values cannot be swapped."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(self.keys[0]).encrypt(nonce, plain, purpose.encode())
        return f"{_VERSION}:{self.current_id}:{_encode(nonce + sealed)}"

    def unseal(self, value: str, purpose: str) -> bytes:
        """Open a sealed value.

        Raises
        ------
        InteropError
            The key is not among ours, or the value was changed or belongs to another purpose.
        """
        version, _, rest = value.partition(":")
        used, _, body = rest.partition(":")
        key = next((key for key in self.keys if key_id(key) == used), None)
        if version != _VERSION or key is None:
            raise InteropError("A sealed value needs a key that is not among the data keys")
        try:
            content = _decode(body)
            return AESGCM(key).decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, binascii.Error, ValueError) as exc:
            raise InteropError("A sealed value cannot be opened") from exc

    def is_current(self, value: str) -> bool:
        """Whether a value is sealed with the current key; one that is not is sealed again when it is next used."""
        return value.startswith(f"{_VERSION}:{self.current_id}:")


def key_id(key: bytes) -> str:
    """Return the id of a key: a short fingerprint, so that nobody has to keep ids and keys in step."""
    return hashlib.sha256(b"foramen data key\0" + key).hexdigest()[:12]


def parse_data_keys(text: str) -> DataKeys:
    """Read keys, one of 32 bytes a line in base64url; empty lines and lines with # do not count.

    Raises
    ------
    InteropError
        There is no key, or one is not 32 bytes long.
    """
    lines = [line.strip() for line in text.splitlines()]
    try:
        keys = tuple(_decode(line) for line in lines if line and not line.startswith("#"))
    except (binascii.Error, ValueError) as exc:
        raise InteropError("The file of data keys is not base64url") from exc
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        raise InteropError(f"The file of data keys needs keys of {_KEY_BYTES} bytes, one a line")
    return DataKeys(keys)


def read_data_keys(home: Path, file: Path | None) -> DataKeys:
    """Read the keys from `file`, or from `home/secrets/data-keys`, made on first use."""
    if file is None:
        return parse_data_keys(read_or_create_secret(home, "data-keys"))
    try:
        return parse_data_keys(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InteropError("The file of data keys cannot be read") from exc
