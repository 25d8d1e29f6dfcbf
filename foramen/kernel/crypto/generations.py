"""The generations of data keys as a file holds them: JSON, or the older form of one key of 32 bytes a line.

NIST SP 800-57 part 1 §5.3 (cryptoperiods): the generation of today, the next one, and old ones that still open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from foramen.kernel.crypto.aead import SECRET_BYTES
from foramen.kernel.crypto.digests import same
from foramen.kernel.crypto.key_wrapping import KeyWrapping, KeyWrappingError, WrappedKey
from foramen.kernel.errors import InteropError

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation; its secret lies here plain or wrapped. Times are Unix seconds.

    `resealed`: whether everything stored was sealed again with it.
    """

    id: str
    made_at: float
    seals_from: float
    resealed: bool
    secret: bytes | WrappedKey = field(repr=False)

    @property
    def wrapped_by(self) -> str | None:
        """Name of the key-encryption key; None: plain."""
        return self.secret.kek if isinstance(self.secret, WrappedKey) else None


def key_id(secret: bytes) -> str:
    """Return the id of a key: a short fingerprint, so that nobody has to keep ids and keys in step."""
    return hashlib.sha256(b"foramen data key\0" + secret).hexdigest()[:12]


def new_generation(now: float, seals_from: float, wrapping: KeyWrapping | None) -> Generation:
    """Make a key; wrapped when there is somebody to wrap it."""
    secret = secrets.token_bytes(SECRET_BYTES)
    made = Generation(key_id(secret), now, seals_from, resealed=False, secret=secret)
    return wrapped(made, wrapping) if wrapping else made


def wrapped(generation: Generation, wrapping: KeyWrapping) -> Generation:
    """Wrap a generation, anew when it is wrapped already."""
    plain = opened(generation, wrapping) if isinstance(generation.secret, WrappedKey) else generation.secret
    return _with_secret(generation, wrapping.wrap(plain, _context(generation.id)))


def opened(generation: Generation, wrapping: KeyWrapping | None) -> bytes:
    """Return the secret of a generation.

    Raises
    ------
    KeyWrappingError
        It is plain where a KMS is set, wrapped where none is, or cannot be unwrapped.
    """
    if not isinstance(generation.secret, WrappedKey):
        if wrapping is not None:
            raise KeyWrappingError(
                "The data keys lie unwrapped although a KMS command is set: run `foramen keys wrap-data`"
            )
        return generation.secret
    if wrapping is None:
        raise KeyWrappingError("The data keys are wrapped by a KMS, and no KMS command is set")
    secret = wrapping.unwrap(generation.secret, _context(generation.id))
    if len(secret) != SECRET_BYTES or not same(key_id(secret).encode(), generation.id.encode()):
        raise KeyWrappingError("The KMS command returned another key than the one that was wrapped")
    return secret


def current(generations: Sequence[Generation], now: float) -> Generation:
    """Return the generation that seals at a moment: the youngest whose time has come, else the oldest."""
    ready = [one for one in generations if one.seals_from <= now]
    return max(ready, key=lambda one: one.seals_from) if ready else generations[0]


def parse(text: str) -> list[Generation]:
    """Read a file of data keys, oldest generation first.

    Raises
    ------
    InteropError
        It is neither form, or has no key. Nothing of its content is repeated.
    """
    try:
        found = _parse_json(text) if text.lstrip().startswith("{") else _parse_lines(text)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise InteropError("The file of data keys cannot be understood") from None
    if not found:
        raise InteropError("The file of data keys has no key")
    return found


def text_of(generations: Sequence[Generation]) -> str:
    """Write generations as JSON."""
    return json.dumps({"format": _FORMAT, "generations": [_written(one) for one in generations]}, indent=1) + "\n"


def _context(generation_id: str) -> str:
    return f"foramen data key {generation_id}"


def _with_secret(one: Generation, secret: WrappedKey) -> Generation:
    return Generation(one.id, one.made_at, one.seals_from, one.resealed, secret)


def _written(one: Generation) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": one.id,
        "made_at": one.made_at,
        "seals_from": one.seals_from,
        "resealed": one.resealed,
    }
    if isinstance(one.secret, WrappedKey):
        return {**values, "kek": one.secret.kek, "wrapped": _encode(one.secret.wrapped)}
    return {**values, "key": _encode(one.secret)}


def _parse_json(text: str) -> list[Generation]:
    content = json.loads(text)
    if content["format"] != _FORMAT:
        raise ValueError("format")
    return [_read(item) for item in content["generations"]]


def _read(item: dict[str, Any]) -> Generation:
    secret: bytes | WrappedKey
    if "wrapped" in item:
        secret = WrappedKey(str(item["kek"]), _decode(item["wrapped"]))
    else:
        secret = _checked(_decode(item["key"]))
        if not same(key_id(secret).encode(), str(item["id"]).encode()):
            raise ValueError("id")
    made_at, seals_from = float(item["made_at"]), float(item["seals_from"])
    return Generation(str(item["id"]), made_at, seals_from, bool(item["resealed"]), secret)


def _parse_lines(text: str) -> list[Generation]:
    """Read the older form: the first line seals, the others open what they have sealed."""
    lines = [line.strip() for line in text.splitlines()]
    keys = [_checked(_decode(line)) for line in lines if line and not line.startswith("#")]
    count = len(keys)
    return [
        Generation(key_id(key), 0.0, float(place - count), resealed=True, secret=key)
        for place, key in enumerate(reversed(keys))
    ]


def _checked(secret: bytes) -> bytes:
    if len(secret) != SECRET_BYTES:
        raise ValueError("length")
    return secret


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
