"""SYNTHETIC CAS server for tests: the server's side of the CAS protocol 3.0, as far as a client meets it.

https://apereo.github.io/cas/7.1.x/protocol/CAS-Protocol-Specification.html §2.1, §2.3, §2.5, §2.8, Appendix A, C
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import escape
from urllib.parse import urlencode

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.contract.smart.live_server import free_port
from tests.contract.smart.outside_provider import served

_ANSWER = '<cas:serviceResponse xmlns:cas="http://www.yale.edu/tp/cas">{0}</cas:serviceResponse>'
_LOGOUT = (
    '<samlp:LogoutRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="{id}" Version="2.0" '
    'IssueInstant="2026-11-22T00:00:00Z"><saml:NameID xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">'
    "@NOT_USED@</saml:NameID><samlp:SessionIndex>{ticket}</samlp:SessionIndex></samlp:LogoutRequest>"
)


@dataclass
class OutsideCas:
    """The server; `answer` replaces what it says of a ticket."""

    port: int
    user: str = "li.wei"
    attributes: dict[str, list[str]] = field(default_factory=dict)
    answer: str | None = None
    tickets: dict[str, str] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    validated: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/cas"

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/cas/login", self._login),
                Route("/cas/p3/serviceValidate", self._validate),
                Route("/cas/logout", self._logout),
            ]
        )

    async def _login(self, request: Request) -> Response:
        service, ticket = request.query_params["service"], f"ST-{secrets.token_urlsafe(16)}"
        self.tickets[ticket] = self.services[ticket] = service
        separator = "&" if "?" in service else "?"
        return RedirectResponse(f"{service}{separator}{urlencode({'ticket': ticket})}", 303)

    async def _validate(self, request: Request) -> Response:
        asked = dict(request.query_params)
        self.validated.append(asked)
        if self.answer is not None:
            return PlainTextResponse(self.answer)
        if self.tickets.pop(asked["ticket"], None) != asked["service"]:
            return PlainTextResponse(_ANSWER.format("<cas:authenticationFailure code='INVALID_TICKET'/>"))
        return PlainTextResponse(self.success(self.user, self.attributes))

    @staticmethod
    def success(user: str, attributes: dict[str, list[str]]) -> str:
        said = "".join(
            f"<cas:{name}>{escape(value)}</cas:{name}>" for name, values in attributes.items() for value in values
        )
        body = f"<cas:user>{escape(user)}</cas:user><cas:attributes>{said}</cas:attributes>"
        return _ANSWER.format(f"<cas:authenticationSuccess>{body}</cas:authenticationSuccess>")

    async def _logout(self, request: Request) -> Response:
        return RedirectResponse(request.query_params["service"], 303)

    @staticmethod
    def logout_request(ticket: str) -> str:
        return _LOGOUT.format(id=secrets.token_hex(8), ticket=escape(ticket))

    async def tell(self, http: httpx.AsyncClient, ticket: str) -> httpx.Response:
        """Tell a service that the session of a ticket is over (§2.8: POST to the service address)."""
        return await http.post(self.services[ticket], data={"logoutRequest": self.logout_request(ticket)})


@asynccontextmanager
async def outside_cas() -> AsyncIterator[OutsideCas]:
    """Run a CAS server on a loopback port."""
    server = OutsideCas(free_port())
    async with served(server.app(), server.port):
        yield server
