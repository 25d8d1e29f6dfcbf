"""Fetch a small document from an address that somebody else named, without becoming their door into our network.

OWASP Server-Side Request Forgery Prevention Cheat Sheet; RFC 9700 §4.11, RFC 7591 §5 (URLs in client metadata);
IANA special-purpose address registries. The name is resolved once, every address it has must be permitted, and the
connection goes to the address that was checked: a name that changes its
address in between (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from foramen.kernel.errors import InvalidRequestError, UpstreamError

Network = IPv4Network | IPv6Network
_UNICAST_6 = ip_network("2000::/3")
"""All that IANA has given out as global unicast; the rest (site-local, unique local, SRv6, …) is somebody's inside."""
_SPECIAL = tuple(
    ip_network(text)
    for text in (
        *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),  # NAT64, 6to4, Teredo: an IPv4 address inside
        *("2001::/23", "3fff::/20", "2001:db8::/32", "2620:4f:8000::/48"),  # protocols, documentation, AS112
        *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.175.48.0/24", "198.18.0.0/15", "240.0.0.0/4"),
    )
)
"""Special-purpose addresses beyond what `ipaddress` of this Python counts as private (IANA registries, RFC 6890)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a foreign server may cost us: bytes of the answer, seconds in all."""

    size_bytes: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer: its bytes and its `Cache-Control`."""

    content: bytes
    cache_control: str


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma-separated list of networks (CIDR).

    Raises
    ------
    ValueError
        One of them is none.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def is_permitted(address: str, networks: Sequence[Network]) -> bool:
    """Whether we may connect: public addresses always, others only inside the named networks."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip.version == network.version and ip in network for network in networks):
        return True
    if isinstance(ip, IPv6Address) and ip not in _UNICAST_6:
        return False
    if any(ip.version == network.version and ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


async def fetch_document(
    url: str, limits: Limits, networks: Sequence[Network], *, tls: ssl.SSLContext | None = None
) -> Fetched:
    """GET a document over https; plain http to loopback only. Redirects are not followed, proxies not used.

    Parameters
    ----------
    networks : networks that are not public and may be reached all the same
    tls : trust in place of the machine's own

    Raises
    ------
    InvalidRequestError
        The URL or the addresses behind it are not permitted.
    UpstreamError
        No answer 200 within the limits.
    """
    parts = httpx.URL(url)
    try:
        async with asyncio.timeout(limits.timeout_s):
            address = await resolve(parts, networks)
            return await _get(parts, address, limits, tls)
    except (httpx.HTTPError, ssl.SSLError, OSError, TimeoutError) as exc:
        raise UpstreamError("The document cannot be fetched") from exc


async def resolve(url: httpx.URL, networks: Sequence[Network]) -> IPv4Address | IPv6Address:
    """Return the one address to connect to, when all that the name has are permitted.

    Raises
    ------
    InvalidRequestError
        They are not, or it is plain http to somewhere else than loopback.
    """
    port = url.port or (443 if url.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    addresses = [str(item[4][0]) for item in found]
    if not addresses or not all(is_permitted(address, networks) for address in addresses):
        raise InvalidRequestError("The address is not in a network that may be reached")
    chosen = ip_address(addresses[0].partition("%")[0])
    if url.scheme != "https" and not chosen.is_loopback:
        raise InvalidRequestError("Only https is fetched")
    return chosen


async def _get(
    url: httpx.URL, address: IPv4Address | IPv6Address, limits: Limits, tls: ssl.SSLContext | None
) -> Fetched:
    target = url.copy_with(host=str(address))
    headers = {"Host": url.netloc.decode("ascii"), "Accept": "application/json", "Accept-Encoding": "identity"}
    async with httpx.AsyncClient(
        verify=tls if tls is not None else True, follow_redirects=False, trust_env=False, timeout=limits.timeout_s
    ) as http:
        request = http.build_request("GET", target, headers=headers, extensions={"sni_hostname": url.host})
        response = await http.send(request, stream=True)
        try:
            if response.status_code != 200:
                raise UpstreamError("The document cannot be fetched")
            content = bytearray()
            async for part in response.aiter_raw():
                content += part
                if len(content) > limits.size_bytes:
                    raise UpstreamError("The document is too large")
        finally:
            await response.aclose()
    return Fetched(bytes(content), response.headers.get("cache-control", ""))
