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
        return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
    except ValueError as exc:
        raise InvalidRequestError("FORAMEN_TRUSTED_PROXIES holds networks, separated by commas") from exc


def _trusted(address: str, proxies: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in proxies)


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
        try:
            client = str(ipaddress.ip_address(claimed))
        except ValueError:
            return client  # not an address: what the last trusted proxy was told ends here
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
