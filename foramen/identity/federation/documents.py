"""A provider's discovery document and keys: fetched under limits, kept for a while, fetched again for an unknown kid.

https://openid.net/specs/openid-connect-discovery-1_0.html §4; RFC 7517; RFC 9111 §5.2 (max-age).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakValueDictionary

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from foramen.identity.federation.outgoing import Reach, call, reach_of
from foramen.identity.federation.providers import Provider
from foramen.identity.oauth.client_checks import check_web_uri
from foramen.identity.oauth.remote_keys import REFETCH_S, keep_s
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.log import get_log

_MAX_KEYS, _MIN_RSA_BITS = 32, 2048
_MOST_ENTRIES = 256
_NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_USED = (*_NEEDED, "userinfo_endpoint", "end_session_endpoint")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What of a discovery document is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    names_itself: bool = False


def parse_metadata(issuer: str, document: Any) -> Metadata:
    """Read a discovery document.

    Raises
    ------
    UpstreamError
        It names another issuer, or something that is needed is not there or no web address.
    """
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise UpstreamError("The discovery document is not the issuer's")
    found = {name: document[name] for name in _USED if document.get(name) is not None}
    if any(not isinstance(value, str) for value in found.values()) or not set(_NEEDED) <= set(found):
        raise UpstreamError("The discovery document lacks an endpoint")
    try:
        for value in found.values():
            check_web_uri(value, "An endpoint")
    except InteropError as exc:
        raise UpstreamError("An endpoint in the discovery document is no web address") from exc
    names_itself = document.get("authorization_response_iss_parameter_supported") is True
    return Metadata(issuer=issuer, names_itself=names_itself, **found)


def parse_keys(document: Any) -> KeySet:
    """Read the public signing keys of a JWKS, leaving out what we do not verify with (RFC 7517 §5).

    Raises
    ------
    UpstreamError
        None is left.
    """
    found: list[Any] = []
    listed = document.get("keys") if isinstance(document, dict) else None
    for item in (listed if isinstance(listed, list) else [])[:_MAX_KEYS]:
        if not isinstance(item, dict) or item.get("use", "sig") != "sig":
            continue
        try:
            key = KeySet.import_key_set({"keys": [item]}).keys[0]
        except (JoseError, ValueError, KeyError, TypeError, AttributeError):
            continue
        weak = isinstance(key, RSAKey) and key.raw_value.key_size < _MIN_RSA_BITS
        if isinstance(key, (RSAKey, ECKey, OKPKey)) and not key.is_private and not weak:
            found.append(key)
    if not found:
        raise UpstreamError("The provider publishes no usable key")
    return KeySet(found)


@dataclass(frozen=True, slots=True)
class _Entry:
    content: Any
    fetched_at: float
    until: float


class OutsideDocuments:
    """The cache of one process, by provider and address; a change of a provider's settings makes new entries."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[tuple[str, ...], _Entry] = {}
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    async def metadata(self, provider: Provider) -> Metadata:
        """Return what a provider says of itself.

        Raises
        ------
        UpstreamError
            It cannot be read.
        """
        url = f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await self._document(provider, url, lambda content: parse_metadata(provider.issuer, content))
        return cast(Metadata, found)

    async def keys(self, provider: Provider, kid: str | None) -> KeySet:
        """Return a provider's keys; an unknown kid has them fetched again, at most every half minute.

        Raises
        ------
        UpstreamError
            They cannot be read.
        """
        url = (await self.metadata(provider)).jwks_uri

        def missing(keys: Any) -> bool:
            return kid is not None and all(key.kid != kid for key in keys.keys)

        found = await self._document(provider, url, parse_keys, missing)
        return cast(KeySet, found)

    async def _document(
        self,
        provider: Provider,
        url: str,
        parse: Callable[[Any], Any],
        missing: Callable[[Any], bool] = lambda _: False,
    ) -> Any:
        key = (provider.id, provider.issuer, url, *provider.settings.networks, provider.settings.ca_file or "")
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            entry, now = self._entries.get(key), self._clock()
            stale = entry is None or now >= entry.until or (entry.content is not None and missing(entry.content))
            if stale and (entry is None or now - entry.fetched_at >= REFETCH_S):
                entry = await self._fetch(reach_of(provider), url, parse, entry)
                self._entries[key] = entry
                while len(self._entries) > _MOST_ENTRIES:
                    del self._entries[next(iter(self._entries))]
        if entry is None or entry.content is None:
            raise UpstreamError("The identity provider does not answer")
        return entry.content

    async def _fetch(self, reach: Reach, url: str, parse: Callable[[Any], Any], old: _Entry | None) -> _Entry:
        try:
            response = await call(reach, "GET", url)
            if response.status_code != 200:
                raise UpstreamError("The identity provider does not answer")
            content = parse(json.loads(response.content))
        except (InteropError, ValueError, RecursionError) as error:
            get_log().warning("document of a provider not readable", part="identity", reason=type(error).__name__)
            now = self._clock()
            # What was read before serves on for as long as it may be kept; a failure is remembered, not hammered.
            kept = old.content if old is not None and now < old.until else None
            return _Entry(kept, now, old.until if old is not None and kept is not None else now)
        now = self._clock()
        kept_s = max(keep_s(response.headers.get("cache-control", "")), REFETCH_S)
        return _Entry(content, now, now + kept_s)
