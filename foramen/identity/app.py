"""Composition root of the authorization server, mounted at `/auth`.

SMART App Launch 2.2 on Authlib and joserfc: https://hl7.org/fhir/smart-app-launch/STU2.2/
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from foramen.identity.audit_outbox import AuditDelivery
from foramen.identity.bootstrap import bootstrap
from foramen.identity.database import IdentityDatabase
from foramen.identity.direct import Direct, answering
from foramen.identity.endpoints import discovery
from foramen.identity.environment import Environment
from foramen.identity.forwarded import Forwarded, parse_proxies
from foramen.identity.housekeeping import keep_house
from foramen.identity.migrate import migrate
from foramen.identity.oauth.backchannel_logout import BackchannelLogout
from foramen.identity.oauth.remote_keys import RemoteKeys
from foramen.identity.oauth.revocation_list import RevocationAwareVerifier, watch
from foramen.identity.oauth.signing import TokenSigner
from foramen.identity.people.accounts import ensure_user
from foramen.identity.people.passwords import password_matches
from foramen.identity.people.second_factor import second_factor_roles
from foramen.identity.rights.break_glass_alerts import BreakGlassAlerts
from foramen.identity.routes import Endpoint, direct_handlers, handler, routes
from foramen.identity.sealing import open_data_keys, watch_data_keys
from foramen.kernel.log import get_log
from foramen.kernel.outbound_addresses import parse_networks
from foramen.kernel.secret_files import read_or_create_secret
from foramen.kernel.settings import Settings
from foramen.kernel.tokens import TokenVerifier

__all__ = ["IdentityService", "bootstrap", "ensure_user", "migrate"]


class IdentityService:
    """Sign-in, consent, tokens and launches. `transport` replaces the network towards our own FHIR API in tests."""

    def __init__(
        self, settings: Settings, database_url: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings
        data_keys = open_data_keys(settings)
        self._signer = TokenSigner(settings, data_keys)
        self._verifier = RevocationAwareVerifier(self._signer.keys, settings.issuer, settings.origin)
        self._database = IdentityDatabase(database_url)
        self._http = httpx.AsyncClient(timeout=10, transport=transport, trust_env=False)
        self._audit = AuditDelivery(self._database, self._signer, self._http, f"{settings.internal_origin}/fhir")
        self._alerts = BreakGlassAlerts(self._database, self._http, settings.break_glass_alert_url)
        networks = parse_networks(settings.client_jwks_networks)
        self._logout = BackchannelLogout(self._database, self._signer, networks)
        self._env = Environment(
            settings=settings,
            database=self._database,
            signer=self._signer,
            verifier=self._verifier,
            audit=self._audit,
            csrf_secret=read_or_create_secret(settings.home, "csrf"),
            data_keys=data_keys,
            remote_keys=RemoteKeys(networks),
            break_glass_alerts=self._alerts,
            transport=transport,
        )
        self._tasks: list[asyncio.Task[None]] = []
        second_factor_roles(settings)  # a setting that cannot be right stops the start, not a sign-in later
        self._proxies = parse_proxies(settings.trusted_proxies)
        self.app = Starlette(routes=list(routes(lambda: self._env)), middleware=[Middleware(Forwarded, self._proxies)])
        self._openid = handler(lambda: self._env, _document(discovery.openid_configuration))
        self._smart = handler(lambda: self._env, _document(discovery.smart_configuration))

    def with_direct(self, app: ASGIApp) -> ASGIApp:
        """Return the whole application with a short way to the endpoints of every sign-in."""
        named = {where: answering(handle) for where, handle in direct_handlers(lambda: self._env).items()}
        if self._proxies:
            named = {where: Forwarded(answer, self._proxies) for where, answer in named.items()}
        return Direct(named, app)

    async def start(self) -> None:
        """Start background work: audit delivery, the revocation list, cleaning."""
        # The hash for unknown names is made once, here, so that the first unknown name takes no longer than others.
        await asyncio.to_thread(password_matches, None, "")
        self.watch_revocations()
        keys = partial(watch_data_keys, self._env.data_keys)
        self._tasks += [
            asyncio.create_task(_keep_running(self._audit.run), name="identity audit delivery"),
            asyncio.create_task(_keep_running(self._alerts.run), name="identity break-glass alerts"),
            asyncio.create_task(_keep_running(self._logout.run), name="identity back-channel logout"),
            asyncio.create_task(_keep_running(partial(keep_house, self._database)), name="identity housekeeping"),
            asyncio.create_task(_keep_running(keys), name="identity data keys"),
        ]

    def watch_revocations(self) -> None:
        """Keep the verifier's revocation list fresh: in every process that verifies tokens, mounted or not."""
        follow = partial(watch, self._verifier, self._database, self._settings.access_token_s)
        self._tasks.append(asyncio.create_task(_keep_running(follow), name="identity revocations"))

    async def stop(self) -> None:
        """Stop background work and close connections; what is in the outbox stays there and is sent next time."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        await self._http.aclose()
        await self._database.close()

    async def ready(self) -> bool:
        """Whether people can sign in and services can get tokens now."""
        return await self._database.ready()

    @property
    def environment(self) -> Environment:
        """What the endpoints work with, for the pages mounted beside this service."""
        return self._env

    def verifier(self) -> TokenVerifier:
        """Return the verifier of the tokens this service signs, for FHIR and DICOMweb."""
        return self._verifier

    async def openid_configuration(self, request: Request) -> Response:
        """`/.well-known/openid-configuration`."""
        return await self._openid(request)

    async def smart_configuration(self, request: Request) -> Response:
        """`/fhir/.well-known/smart-configuration`."""
        return await self._smart(request)


async def _keep_running(work: Callable[[], Awaitable[None]], pause_s: float = 1.0) -> None:
    """Start background work again when it ends by a fault: nothing else would notice that it is gone."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001  whatever it was, revocation and audit must go on
            get_log().exception("background work failed", part="identity")
        await asyncio.sleep(pause_s)


def _document(function: discovery.Document) -> Endpoint:
    return Endpoint("", {"GET": function}, cors=True)
