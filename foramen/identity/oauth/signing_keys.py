"""The server's signing keys as one file that is replaced as a whole: the key of today, the next one, and old ones until
the last token they signed has run out.

OpenID Connect Core §10.1.1 (rotation of signing keys), RFC 7517, NIST SP 800-57 part 1 §5.3 (cryptoperiods).

A new key is published for ten minutes before it signs: whoever keeps our JWKS for its five minutes knows it by then.
Writers hold a lock file; a reader sees the old file or the new one, never a part (rename).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, KeySet, RSAKey

from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log
from foramen.kernel.secret_files import SealedFileError, read_private, replace_private
from foramen.kernel.tokens import ALGORITHM

RSA_ALGORITHM = "RS256"
"""For id_tokens of apps that are not ours: every OpenID Connect client takes it, and SMART asks for it."""
PUBLISH_AHEAD_S = 600
_RSA_BITS = 2048
_P256_BYTES = 32
_SHA256, _ES256, _PKCS1 = SHA256(), ECDSA(SHA256()), PKCS1v15()
_FILE, _LOCK, _FIRST = "signing.jwks.json", ".signing.lock", "signing.jwk.json"


def base64url(content: bytes) -> bytes:
    """Encode as RFC 7515 §2 says: no padding."""
    return urlsafe_b64encode(content).rstrip(b"=")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair; times are Unix seconds. `tokens_until`: when the last token it signed runs out, as far as known."""

    key: ECKey | RSAKey
    signs_from: float
    tokens_until: float
    _headers: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def alg(self) -> str:
        """Algorithm it signs with (RFC 7518 §3.1)."""
        return ALGORITHM if isinstance(self.key, ECKey) else RSA_ALGORITHM

    @property
    def kid(self) -> str:
        """Key id: the RFC 7638 thumbprint."""
        return str(self.key.kid)

    def sign_token(self, kind: str, claims: Mapping[str, Any]) -> str:
        """Return a JWT in compact form (RFC 7515 §7.1, RFC 7519 §7); `kind` is its `typ`.

        joserfc reads the header and looks for the key at every token, which costs twice what signing does.
        """
        started = self._headers.get(kind)
        if started is None:
            header = {"alg": self.alg, "typ": kind, "kid": self.kid}
            started = self._headers[kind] = base64url(orjson.dumps(header)) + b"."
        said = started + base64url(orjson.dumps(claims))
        private: Any = self.key.private_key
        if isinstance(self.key, ECKey):
            first, second = decode_dss_signature(private.sign(said, _ES256))
            signature = first.to_bytes(_P256_BYTES, "big") + second.to_bytes(_P256_BYTES, "big")  # RFC 7518 §3.4
        else:
            signature = private.sign(said, _PKCS1, _SHA256)
        return (said + b"." + base64url(signature)).decode("ascii")

    def public(self) -> dict[str, Any]:
        """Return the public JWK."""
        return {**self.key.as_dict(private=False), "kid": self.kid, "alg": self.alg, "use": "sig"}


def active_key(keys: list[SigningKey], now: float, alg: str = ALGORITHM) -> SigningKey:
    """Return the key that signs at a moment: the youngest of its kind whose time has come, else the first one."""
    fitting = [key for key in keys if key.alg == alg]
    ready = [key for key in fitting if key.signs_from <= now]
    return max(ready, key=lambda key: key.signs_from) if ready else fitting[0]


def kept_keys(keys: list[SigningKey], now: float) -> list[SigningKey]:
    """Drop the keys that sign no more and whose tokens have all run out."""
    return [
        key for key in keys if key.signs_from >= active_key(keys, now, key.alg).signs_from or key.tokens_until > now
    ]


class SigningKeys:
    """The key file of one installation, read again when it changed."""

    def __init__(self, home: Path, longest_token_s: int) -> None:
        self._folder, self._longest_token_s = home / "secrets", longest_token_s
        self._stamp: tuple[int, int, int] | None = None
        self._keys: list[SigningKey] = []
        self._key_set = KeySet([])
        self._looked_at = float("-inf")
        if not (self._folder / _FILE).exists():
            self._create()
        self.refresh()

    def all(self) -> list[SigningKey]:
        """Every key that is published, in the order they were made."""
        self._look(1.0)
        return self._keys

    def refresh(self) -> bool:
        """Read the file again if it changed; returns whether it did."""
        stamp = self._stamp
        self._look(0.0)
        return self._stamp != stamp

    def active(self, alg: str = ALGORITHM) -> SigningKey:
        """Return the key that signs now with an algorithm."""
        return active_key(self.all(), time.time(), alg)

    def key_set(self) -> KeySet:
        """Return the public keys to verify with."""
        self._look(1.0)
        return self._key_set

    def note_token(self, key: SigningKey, expires_at: float) -> None:
        """Remember a token that outlives the ordinary ones, so that its key is kept long enough."""
        if expires_at <= key.tokens_until:
            return
        with self._locked():
            changed = [replace(one, tokens_until=expires_at) if one.kid == key.kid else one for one in self._read()]
            self._write(changed)

    def rotate(self, *, at_once: bool = False, drop_old: bool = False) -> SigningKey:
        """Make the next keys, one for each algorithm; returns the one for access tokens.

        Parameters
        ----------
        at_once : sign with it now and not in ten minutes
        drop_old : forget the old keys, after a theft: every token they signed is refused from now on
        """
        with self._locked():
            now = time.time()
            keys = kept_keys(self._read(), now)
            new, *more = _new_keys(now if at_once or drop_old else now + PUBLISH_AHEAD_S)
            stops = new.signs_from + self._longest_token_s
            old = [] if drop_old else [replace(key, tokens_until=max(key.tokens_until, stops)) for key in keys]
            self._write([*old, new, *more])
        self.refresh()
        return new

    def _create(self) -> None:
        """Make the first key, or take over the single key of earlier versions."""
        with self._locked():
            if (self._folder / _FILE).exists():
                return
            first = self._folder / _FIRST
            if first.exists():
                key = ECKey.import_key(cast(Any, json.loads(first.read_text(encoding="utf-8"))))
                self._write([SigningKey(key, 0.0, 0.0), _new_keys(0.0)[1]])
                first.unlink()
            else:
                self._write(_new_keys(0.0))

    def _look(self, pause_s: float) -> None:
        now = time.monotonic()
        if now - self._looked_at < pause_s:
            return
        self._looked_at = now
        try:
            status = (self._folder / _FILE).stat()
        except FileNotFoundError:
            if self._keys:  # what was read stays good
                return
            raise
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            try:
                self._keys, self._stamp = self._read(), stamp
            except SealedFileError:
                if not self._keys:
                    raise
                # A KMS was set after this process had started: it goes on with what it read until it is started anew.
                self._stamp = stamp
                get_log().warning("signing keys not read again", part="identity")
                return
            public: Any = {"keys": [key.public() for key in self._keys]}
            self._key_set = KeySet.import_key_set(public)

    def _read(self) -> list[SigningKey]:
        try:
            content = json.loads(read_private(self._folder / _FILE))
            keys = [
                SigningKey(_signing_jwk(item["jwk"]), float(item["signs_from"]), float(item["tokens_until"]))
                for item in content["keys"]
            ]
        except (OSError, ValueError, KeyError, TypeError, JoseError) as exc:
            raise UpstreamError("The signing keys cannot be read") from exc
        if not keys:
            raise UpstreamError("There is no signing key")
        return keys

    def _write(self, keys: list[SigningKey]) -> None:
        content = {
            "keys": [
                {
                    "jwk": {**key.key.as_dict(private=True), "kid": key.kid},
                    "signs_from": key.signs_from,
                    "tokens_until": key.tokens_until,
                }
                for key in keys
            ]
        }
        replace_private(self._folder / _FILE, json.dumps(content))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _new_keys(signs_from: float) -> list[SigningKey]:
    """Make a P-256 key for access tokens and our own apps, and an RSA key for id_tokens of others."""
    made = []
    for key in (ECKey.generate_key("P-256", private=True), RSAKey.generate_key(_RSA_BITS, private=True)):
        named = _signing_jwk({**key.as_dict(private=True), "kid": key.thumbprint()})
        made.append(SigningKey(named, signs_from, 0.0))
    return made


def _signing_jwk(jwk: dict[str, Any]) -> ECKey | RSAKey:
    key = JWKRegistry.import_key(jwk)
    if not isinstance(key, ECKey | RSAKey):
        raise TypeError("neither EC nor RSA")
    return key
