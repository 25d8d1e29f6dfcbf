"""Authenticated encryption behind one interface: AES-256-GCM or SM4-GCM, both by OpenSSL through `cryptography`.

NIST SP 800-38D (GCM), FIPS 197 (AES), GB/T 32907-2016 (SM4), RFC 8998 (SM4-GCM). A key of a cipher is derived from a
secret of 32 bytes by HKDF (RFC 5869), with the digest of the same family: the same secret serves either cipher and no
key is used with two.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherAlgorithm, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from foramen.kernel.crypto.signatures import AlgorithmUnavailableError
from foramen.kernel.errors import InteropError

CipherName = Literal["AES-256-GCM", "SM4-GCM"]
SECRET_BYTES = 32
NONCE_BYTES, TAG_BYTES = 12, 16


class BrokenCiphertextError(InteropError):
    """A ciphertext was changed or cut short, belongs elsewhere (associated data), or was made with another key."""


@dataclass(frozen=True, eq=False)  # One of a name: each is itself, and can be a key of a cache.
class AeadCipher:
    """A cipher with its own tag and nonce; a nonce is random, so one key seals at most 2³² values (SP 800-38D §8.3)."""

    name: CipherName
    key_bytes: int
    block: type[algorithms.AES] | type[algorithms.SM4]
    digest: hashes.HashAlgorithm

    @lru_cache(maxsize=64)  # noqa: B019 - two ciphers, which live for ever; a page opens many values by one key
    def key(self, secret: bytes, purpose: str) -> bytes:
        """Derive the key of this cipher from a secret of 32 bytes (HKDF)."""
        info = f"foramen {purpose} {self.name}".encode()
        return HKDF(self.digest, self.key_bytes, None, info).derive(secret)

    def encrypt(self, key: bytes, plain: bytes, associated: bytes, nonce: bytes | None = None) -> bytes:
        """Return nonce, ciphertext and tag one after the other.

        Parameters
        ----------
        key : `key_bytes` long
        associated : is not stored and has to be the same to decrypt
        nonce : 12 bytes; only published examples give one
        """
        nonce = secrets.token_bytes(NONCE_BYTES) if nonce is None else nonce
        work = Cipher(self._algorithm(key), modes.GCM(nonce)).encryptor()
        work.authenticate_additional_data(associated)
        body = work.update(plain) + work.finalize()
        return nonce + body + work.tag

    def decrypt(self, key: bytes, content: bytes, associated: bytes) -> bytes:
        """Return what was encrypted; nothing of it before the tag was checked (in constant time, by OpenSSL).

        Raises
        ------
        BrokenCiphertextError
            Changed, cut short, of other associated data, or of another key.
        """
        if len(content) < NONCE_BYTES + TAG_BYTES:
            raise BrokenCiphertextError("A sealed value cannot be opened")
        nonce, body, tag = content[:NONCE_BYTES], content[NONCE_BYTES:-TAG_BYTES], content[-TAG_BYTES:]
        work = Cipher(self._algorithm(key), modes.GCM(nonce, tag)).decryptor()
        work.authenticate_additional_data(associated)
        try:
            return work.update(body) + work.finalize()
        except InvalidTag as exc:
            raise BrokenCiphertextError("A sealed value cannot be opened") from exc

    def check(self) -> None:
        """Try it once.

        Raises
        ------
        AlgorithmUnavailableError
            The OpenSSL of this installation lacks it.
        """
        try:
            self.encrypt(bytes(self.key_bytes), b"", b"")
            self.key(bytes(SECRET_BYTES), "check")
        except UnsupportedAlgorithm as exc:
            raise AlgorithmUnavailableError(f"{self.name} is not offered by the OpenSSL of this installation") from exc

    def _algorithm(self, key: bytes) -> CipherAlgorithm:
        if len(key) != self.key_bytes:
            raise ValueError(f"{self.name} takes keys of {self.key_bytes} bytes")
        return self.block(key)


_CIPHERS: dict[str, AeadCipher] = {
    "AES-256-GCM": AeadCipher("AES-256-GCM", 32, algorithms.AES, hashes.SHA256()),
    "SM4-GCM": AeadCipher("SM4-GCM", 16, algorithms.SM4, hashes.SM3()),
}


def cipher(name: str) -> AeadCipher:
    """Return the cipher of this name.

    Raises
    ------
    ValueError
        There is no such cipher here.
    """
    found = _CIPHERS.get(name)
    if found is None:
        raise ValueError("unknown cipher")
    return found
