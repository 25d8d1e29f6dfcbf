"""The client's address behind a proxy: `X-Forwarded-For` is believed from trusted proxies only.

https://developer.mozilla.org/docs/Web/HTTP/Headers/X-Forwarded-For#selecting_an_ip_address: from the right, the first
address that is not one of our proxies. Whatever stands left of it was written by the client and may be anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from foramen.kernel.errors import InvalidRequestError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_proxies(text: str) -> tuple[Network, ...]:
    """Read networks separated by commas.

    Raises
    ------
    InvalidRequestError
        Something is not an address or a network.
    """
    try:
        networks = [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]
    except ValueError as exc:
        raise InvalidRequestError("FORAMEN_TRUSTED_PROXIES holds networks, separated by commas") from exc
    return tuple(_plain(network) for network in networks)


_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def _plain(network: Network) -> Network:
    """Return `::ffff:10.0.0.0/104` as `10.0.0.0/8`."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        inside = ipaddress.IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return ipaddress.IPv4Network((inside, network.prefixlen - _MAPPED.prefixlen))
    return network


def plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address; the form in which a socket for both families shows an IPv4 one is that one (RFC 4291 §2.5.5.2).

    Returns
    -------
    None when it is no address.
    """
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, ipaddress.IPv6Address) else parsed


def _trusted(address: str, proxies: Sequence[Network]) -> bool:
    parsed = plain_address(address)
    return parsed is not None and any(parsed in network for network in proxies)


def address_behind(peer: str, forwarded: Sequence[str], proxies: Sequence[Network]) -> str:
    """Return the client's address: the peer's, or what trusted proxies say stands before them.

    Parameters
    ----------
    peer : address of the connection
    forwarded : values of `X-Forwarded-For`, in the order of the header lines
    """
    client = peer
    for claimed in reversed([part.strip() for value in forwarded for part in value.split(",")]):
        if not _trusted(client, proxies):
            return client
        address = plain_address(claimed)
        if address is None:
            return client  # not an address: what the last trusted proxy was told ends here
        client = str(address)
    return client


class Forwarded:
    """ASGI middleware that puts the client's address in the place of the proxy's."""

    def __init__(self, app: ASGIApp, proxies: Sequence[Network]) -> None:
        self._app, self._proxies = app, proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if self._proxies and scope["type"] == "http" and scope.get("client"):
            values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
            peer, port = scope["client"]
            scope = {**scope, "client": (address_behind(peer, values, self._proxies), port)}
        await self._app(scope, receive, send)
