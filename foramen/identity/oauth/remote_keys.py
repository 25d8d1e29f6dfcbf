"""Keys of clients that publish them at a URL (`jwks_uri`): fetched under limits, kept for a while, fetched again when
a key is not known.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html#registering-a-client-communicating-public-keys;
RFC 7517; RFC 9111 §5.2 (max-age).
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from joserfc.jwk import KeySet

from foramen.identity.oauth.client_checks import usable_keys
from foramen.kernel.errors import InteropError
from foramen.kernel.log import get_log
from foramen.kernel.outbound_addresses import Limits, Network, fetch_document

LIMITS = Limits(size_bytes=64 * 1024, timeout_s=5)
KEEP_S, LONGEST_KEEP_S = 300, 3600
REFETCH_S = 30
"""Least time between two fetches of one URL: an unknown kid or `no-store` cannot make us hammer it."""
_MAX_URLS = 256
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s])")


class KeysNeeded(Exception):
    """The keys at a URL have to be fetched first: no fault, the transaction ends and is tried again afterwards."""

    def __init__(self, uri: str) -> None:
        super().__init__("keys needed")
        self.uri = uri


@dataclass(frozen=True, slots=True)
class _Entry:
    keys: KeySet | None
    fetched_at: float
    until: float


class RemoteKeys:
    """The cache of one process. `known` never waits, so that it may be asked inside a transaction."""

    def __init__(
        self,
        networks: Sequence[Network] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._networks, self._clock, self._tls = networks, clock, tls
        self._entries: dict[str, _Entry] = {}
        self._fetching: dict[str, asyncio.Lock] = {}

    def known(self, uri: str, kid: str) -> KeySet | None:
        """Return the keys at a URL, or None when they could not be fetched lately.

        Raises
        ------
        KeysNeeded
            They were not fetched yet, are too old, or hold no such key; call `refresh` and ask again.
        """
        entry, now = self._entries.get(uri), self._clock()
        if entry is None:
            raise KeysNeeded(uri)
        has_key = entry.keys is not None and any(key.kid == kid for key in entry.keys.keys)
        if has_key and now < entry.until:
            return entry.keys
        if now - entry.fetched_at >= REFETCH_S:
            raise KeysNeeded(uri)
        return entry.keys

    async def refresh(self, uri: str) -> None:
        """Fetch the keys at a URL once, however many ask at the same time; a failure is remembered too."""
        asked_at = self._clock()
        lock = self._fetching.setdefault(uri, asyncio.Lock())
        async with lock:
            entry = self._entries.get(uri)
            if entry is not None and entry.fetched_at >= asked_at:
                return
            self._entries[uri] = self._kept(entry, await self._fetch(uri))
            self._fetching.pop(uri, None)
            while len(self._entries) > _MAX_URLS:
                del self._entries[next(iter(self._entries))]

    def _kept(self, before: _Entry | None, now: _Entry) -> _Entry:
        """Keep what was fetched before, until its time is over, when it cannot be fetched again.

        A fault of the client's web server must not stop the client; the next fetch waits all the same.
        """
        if now.keys is not None or before is None or before.until <= now.fetched_at:
            return now
        return _Entry(before.keys, now.fetched_at, before.until)

    async def _fetch(self, uri: str) -> _Entry:
        try:
            fetched = await fetch_document(uri, LIMITS, self._networks, tls=self._tls)
            keys = usable_keys(json.loads(fetched.content))
        except (InteropError, ValueError, RecursionError) as error:
            get_log().warning("keys of a client not readable", part="identity", reason=type(error).__name__)
            now = self._clock()
            return _Entry(None, now, now)
        now = self._clock()
        return _Entry(keys, now, now + max(keep_s(fetched.cache_control), REFETCH_S))


def keep_s(cache_control: str) -> int:
    """How long an answer may be kept: its max-age up to an hour, five minutes without one, not at all by `no-store`."""
    text = cache_control.lower()
    if "no-store" in text or "no-cache" in text:
        return 0
    match = _MAX_AGE.search(text)
    return min(int(match.group(1)), LONGEST_KEEP_S) if match else KEEP_S
