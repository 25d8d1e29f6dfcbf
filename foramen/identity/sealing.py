"""Seal small secrets that the database keeps, with the cipher of the setting; cipher and key are named in the value.

NIST SP 800-38D (GCM), RFC 8998 (SM4-GCM). Form: `v2:<cipher>:<key id>:<base64url of nonce, ciphertext and tag>`; the
head and the purpose (whose and what it is) are associated data. What version 1 sealed (AES-256-GCM) is still opened.
ADR 0031.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from foramen.kernel.crypto.aead import CipherName, cipher
from foramen.kernel.crypto.generations import key_id, opened, parse
from foramen.kernel.crypto.key_ring import DataKey, FixedKeys, KeyProvider, KeyRing, RingFile
from foramen.kernel.crypto.key_wrapping import KeyWrapping, KmsCommand
from foramen.kernel.errors import InteropError
from foramen.kernel.log import get_log
from foramen.kernel.secret_files import seal_files
from foramen.kernel.settings import Settings

AES: CipherName = "AES-256-GCM"
_FIRST, _VERSION = "v1", "v2"
_PURPOSE = "seal"
_WATCH_S = 1.0
_WATCH_AFTER_FAILURE_S = 5.0


class DataKeys:
    """Seals and opens with the keys of a provider.

    Parameters
    ----------
    keys : a provider, or secrets of 32 bytes of which the first seals
    cipher_name : what seals from now on; what was sealed tells its own
    """

    def __init__(self, keys: KeyProvider | Sequence[bytes], cipher_name: CipherName = AES) -> None:
        given = FixedKeys([DataKey(key_id(key), key) for key in keys]) if isinstance(keys, Sequence) else keys
        self.provider: KeyProvider = given
        self._cipher = cipher(cipher_name)

    @property
    def current_id(self) -> str:
        """Id of the key that seals now."""
        return self.provider.current().id

    @property
    def current_head(self) -> str:
        """Beginning of every value that is sealed now."""
        return self._head(self.current_id)

    def seal(self, plain: bytes, purpose: str) -> str:
        """Seal a value; `purpose` says whose and what it is and is needed to open it, so values cannot be swapped."""
        key = self.provider.current()
        head = self._head(key.id)
        derived = self._cipher.key(key.secret, _PURPOSE)
        return head + _encode(self._cipher.encrypt(derived, plain, f"{head}\0{purpose}".encode()))

    def unseal(self, value: str, purpose: str) -> bytes:
        """Open a sealed value.

        Raises
        ------
        InteropError
            The key is not among ours, or the value was changed or belongs to another purpose.
        UpstreamError
            The keys cannot be read now.
        """
        version, _, rest = value.partition(":")
        name, used, body = _parts(version, rest)
        try:
            own = cipher(name)
        except ValueError:
            raise InteropError("A sealed value was made by a cipher that is unknown here") from None
        key = self.provider.find(used)
        if key is None:
            raise InteropError("A sealed value needs a key that is not among the data keys")
        try:
            content = _decode(body)
        except (binascii.Error, ValueError):
            raise InteropError("A sealed value cannot be opened") from None
        if version == _FIRST:  # the secret itself was the key
            return own.decrypt(key.secret, content, purpose.encode())
        head = f"{version}:{name}:{used}:"
        return own.decrypt(own.key(key.secret, _PURPOSE), content, f"{head}\0{purpose}".encode())

    def seal_file(self, name: str, content: str) -> str:
        """See `foramen.kernel.secret_files.FileSealer`."""
        return self.seal(content.encode(), f"secret file {name}")

    def open_file(self, name: str, sealed: str) -> str:
        """See `foramen.kernel.secret_files.FileSealer`."""
        return self.unseal(sealed, f"secret file {name}").decode()

    def is_current(self, value: str) -> bool:
        """Whether a value is sealed with key and cipher of now; one that is not is sealed again when next used."""
        return value.startswith(self.current_head)

    def _head(self, used: str) -> str:
        return f"{_VERSION}:{self._cipher.name}:{used}:"


def _parts(version: str, rest: str) -> tuple[str, str, str]:
    """Return cipher, key id and body."""
    name = AES if version == _FIRST else rest.partition(":")[0]
    used, _, body = (rest if version == _FIRST else rest.partition(":")[2]).partition(":")
    if version not in (_FIRST, _VERSION) or not body:
        raise InteropError("What should be a sealed value is none")
    return name, used, body


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def parse_data_keys(text: str) -> DataKeys:
    """Read keys that are not wrapped, as a file has them.

    Raises
    ------
    InteropError
        There is no key, or one is not 32 bytes long.
    """
    found = sorted(parse(text), key=lambda one: one.seals_from, reverse=True)
    return DataKeys([opened(one, None) for one in found])


def ring_file(home: Path, file: Path | None) -> RingFile:
    """Return the file of the setting, or `home/secrets/data-keys`."""
    return RingFile(file or home / "secrets" / "data-keys", own=file is None)


def key_wrapping(settings: Settings) -> KeyWrapping | None:
    """Return who holds the key-encryption key, by the settings; None: the data keys lie plain in their file."""
    return KmsCommand(settings.kms_command, settings.kms_timeout_s) if settings.kms_command else None


def read_data_keys(home: Path, file: Path | None) -> DataKeys:
    """Read keys that are not wrapped from `file`, or from `home/secrets/data-keys`, made on first use."""
    return DataKeys(KeyRing(ring_file(home, file), None))


def open_data_keys(settings: Settings) -> DataKeys:
    """Read the keys as the settings say.

    Raises
    ------
    InteropError
        A key cannot be read or unwrapped, or OpenSSL lacks the cipher: the server must not start without them.
    """
    cipher(settings.cipher).check()
    ring = KeyRing(ring_file(settings.home, settings.data_keys_file), key_wrapping(settings))
    return DataKeys(ring, settings.cipher)


def protect_files(settings: Settings, keys: DataKeys | None = None) -> None:
    """Let signing keys and the seal of the audit lie sealed where a KMS is set; before any of them is read.

    Raises
    ------
    InteropError
        The KMS cannot be asked: a server must not start without them.
    """
    wanted = (keys or open_data_keys(settings)) if settings.kms_command else None
    seal_files(settings.home, wanted)


async def watch_data_keys(keys: DataKeys) -> None:
    """Take over new generations, until cancelled; the KMS is asked in a thread, so that nobody waits for it."""
    while True:
        pause = _WATCH_S
        try:
            await asyncio.to_thread(keys.provider.refresh)
        except InteropError as exc:
            get_log().warning("data keys not read again", part="identity", reason=exc.message)
            pause = _WATCH_AFTER_FAILURE_S
        await asyncio.sleep(pause)
