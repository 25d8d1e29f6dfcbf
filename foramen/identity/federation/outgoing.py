"""Requests to an outside provider: pinned to an address that was checked, small answers, no redirects, no proxies.

OWASP Server-Side Request Forgery Prevention Cheat Sheet; the checks are those of `foramen.kernel.outbound_addresses`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import httpx

from foramen.identity.federation.providers import Provider
from foramen.kernel.errors import UpstreamError
from foramen.kernel.outbound_addresses import Limits, Network, resolve

LIMITS = Limits(size_bytes=256 * 1024, timeout_s=8)


@dataclass(frozen=True, slots=True)
class Reach:
    """How a provider may be reached."""

    networks: Sequence[Network]
    tls: ssl.SSLContext
    limits: Limits = LIMITS


@lru_cache(maxsize=16)
def _trust(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


def reach_of(provider: Provider) -> Reach:
    """Return how a provider may be reached.

    Raises
    ------
    UpstreamError
        The file of its certificate authorities cannot be read.
    """
    try:
        return Reach(provider.networks(), _trust(provider.settings.ca_file))
    except OSError as exc:
        raise UpstreamError("The provider's certificate authorities cannot be read") from exc


async def call(
    reach: Reach,
    method: str,
    url: str,
    *,
    form: dict[str, str] | None = None,
    auth: httpx.Auth | None = None,
    bearer: str | None = None,
) -> httpx.Response:
    """Send one request and read the whole answer, whatever its status.

    Raises
    ------
    InvalidRequestError
        The URL or the addresses behind it are not permitted.
    UpstreamError
        No answer within the limits.
    """
    parts = httpx.URL(url)
    headers = {"Host": parts.netloc.decode("ascii"), "Accept": "application/json", "Accept-Encoding": "identity"}
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    try:
        async with asyncio.timeout(reach.limits.timeout_s):
            address = await resolve(parts, reach.networks)
            async with httpx.AsyncClient(
                verify=reach.tls, follow_redirects=False, trust_env=False, timeout=reach.limits.timeout_s
            ) as http:
                request = http.build_request(
                    method,
                    parts.copy_with(host=str(address)),
                    headers=headers,
                    data=form,
                    extensions={"sni_hostname": parts.host},
                )
                return await _read(http, request, auth, reach.limits.size_bytes)
    except (httpx.HTTPError, ssl.SSLError, OSError, TimeoutError) as exc:
        raise UpstreamError("The identity provider does not answer") from exc


async def _read(http: httpx.AsyncClient, request: httpx.Request, auth: httpx.Auth | None, most: int) -> httpx.Response:
    response = await http.send(request, auth=auth, stream=True)
    try:
        content = bytearray()
        async for part in response.aiter_raw():
            content += part
            if len(content) > most:
                raise UpstreamError("The identity provider's answer is too large")
    finally:
        await response.aclose()
    return httpx.Response(response.status_code, headers=_plain(response.headers), content=bytes(content))


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Headers of an answer whose body is taken as it came: nothing is unpacked."""
    return {name: value for name, value in headers.items() if name.lower() != "content-encoding"}
