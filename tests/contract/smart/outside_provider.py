"""SYNTHETIC outside OpenID provider for tests: a small one that does as it should, and every wrong thing when told.

OpenID Connect Core, RP-Initiated Logout, Back-Channel Logout; whoever opens its sign-in page is signed in as `person`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus, urlencode

import httpx
from granian.constants import Interfaces
from granian.server.embed import Server
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.contract.smart.live_server import free_port

CLIENT_ID, SECRET = "foramen-here", "SYNTHETIC+secret/of the client%"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@asynccontextmanager
async def served(app: Any, port: int) -> AsyncIterator[None]:
    """Serve an ASGI application on a loopback port."""
    server = Server(app, address="127.0.0.1", port=port, interface=Interfaces.ASGINL, log_enabled=False)
    task = asyncio.create_task(server.serve())
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            break
    try:
        yield
    finally:
        server.stop()
        await task


@dataclass
class OutsideProvider:
    """The provider; `person` holds the claims of who is signed in there, the other fields make it misbehave."""

    port: int
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "s-1"})
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, parameters={"kid": "k1", "use": "sig"}))
    published: list[RSAKey] | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    sign: Callable[[dict[str, Any]], str] | None = None
    response: dict[str, str | None] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    backchannel: str = ""
    page: bool = False
    sid: str = ""
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def behave(self) -> None:
        """Do as it should from now on."""
        self.claims, self.sign, self.response, self.userinfo, self.published = {}, None, {}, None, None
        self.asked.clear()
        self.sid = uuid.uuid4().hex

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._discovery),
                Route("/jwks", self._jwks),
                Route("/authorize", self._authorize, methods=["GET", "POST"]),
                Route("/token", self._token, methods=["POST"]),
                Route("/userinfo", self._userinfo),
                Route("/logout", self._logout, methods=["GET", "POST"]),
            ]
        )

    async def _discovery(self, _: Request) -> Response:
        self.fetched.append("discovery")
        paths = {"authorization": "authorize", "token": "token", "userinfo": "userinfo", "end_session": "logout"}
        content = {
            "issuer": self.issuer,
            **{f"{name}_endpoint": f"{self.issuer}/{path}" for name, path in paths.items()},
            "jwks_uri": f"{self.issuer}/jwks",
            "authorization_response_iss_parameter_supported": True,
            "backchannel_logout_supported": True,
            **self.metadata,
        }
        return JSONResponse({key: value for key, value in content.items() if value is not None})

    async def _jwks(self, _: Request) -> Response:
        self.fetched.append("jwks")
        keys = self.published if self.published is not None else [self.key]
        return JSONResponse(KeySet(keys).as_dict(private=False))

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        if self.page and request.cookies.get("outside") != self.sid and request.method == "GET":
            return HTMLResponse(
                "<title>SYNTHETIC platform</title><h1>SYNTHETIC platform</h1>"
                f"<form method=post action='?{urlencode(asked)}'><button>sign in</button></form>"
            )
        self.asked.append(asked)
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.issuer, **self.response}
        query = urlencode({key: value for key, value in answer.items() if value is not None})
        response = RedirectResponse(f"{asked['redirect_uri']}?{query}", 303)
        response.set_cookie("outside", self.sid)
        return response

    async def _token(self, request: Request) -> Response:
        form = {key: str(value) for key, value in (await request.form()).items()}
        asked = self._codes.pop(form.get("code", ""), None)
        credentials = request.headers.get("authorization", "").removeprefix("Basic ")
        presented = base64.b64decode(credentials).decode().split(":") if credentials else ["", ""]
        right = [unquote_plus(part) for part in presented] == [CLIENT_ID, SECRET]
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        if asked is None or not right or challenge != asked["code_challenge"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        access_token = secrets.token_urlsafe(16)
        return JSONResponse(
            {"token_type": "Bearer", "access_token": access_token, "id_token": self.id_token(asked["nonce"])}
        )

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "auth_time": now,
            "nonce": nonce,
            "sid": self.sid,
            **self.person,
            **self.claims,
        }
        claims = {key: value for key, value in claims.items() if value is not None}
        return self.sign(claims) if self.sign else self.signed(claims)

    def signed(self, claims: dict[str, Any], *, key: Any = None, alg: str = "RS256", **header: Any) -> str:
        key = key or self.key
        return jwt.encode({"alg": alg, "kid": key.kid, **header}, claims, key, algorithms=[alg])

    async def _userinfo(self, _: Request) -> Response:
        self.fetched.append("userinfo")
        return JSONResponse({"sub": self.person["sub"], **(self.userinfo or {})})

    def logout_token(self, **changes: Any) -> str:
        """A logout token of the session there."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 120,
            "jti": uuid.uuid4().hex,
            "sub": self.person["sub"],
            "sid": self.sid,
            "events": {EVENT: {}},
            **changes,
        }
        return self.signed({k: v for k, v in claims.items() if v is not None}, typ="logout+jwt")

    async def _logout(self, request: Request) -> Response:
        asked = dict(request.query_params)
        if self.backchannel:
            async with httpx.AsyncClient(trust_env=False) as http:
                await http.post(self.backchannel, data={"logout_token": self.logout_token()})
        target = asked.get("post_logout_redirect_uri")
        if target is None:
            return HTMLResponse("<title>signed out there</title>")
        return RedirectResponse(f"{target}?{urlencode({'state': asked.get('state', '')})}", 303)


@asynccontextmanager
async def outside_provider(**values: Any) -> AsyncIterator[OutsideProvider]:
    """Run a provider on a loopback port."""
    provider = OutsideProvider(free_port(), **values)
    provider.behave()
    async with served(provider.app(), provider.port):
        yield provider
