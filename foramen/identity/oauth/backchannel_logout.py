"""Tell apps that a person signed out: a signed logout token by POST, tried again until it is taken or too old.

https://openid.net/specs/openid-connect-backchannel-1_0.html §2.4-2.8. The address is the app's, so it is reached as its
`jwks_uri` is: public networks only, name resolved once, no redirects (`kernel.outbound_addresses`). Deliverers in
several processes take different rows (SKIP LOCKED).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import Connection, delete, select, update

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import IdentityDatabase, utc_now
from foramen.identity.oauth.clients import Client, find_client
from foramen.identity.oauth.signing import TokenSigner
from foramen.identity.security_event import FAILED, SUCCESS, SecurityEvent
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.log import get_log
from foramen.kernel.outbound_addresses import Network, resolve

GIVE_UP_AFTER = timedelta(hours=24)
WHAT = "backchannel-logout"
_TAKEN = (200, 204)
_BATCH = 10
_TIMEOUT_S = 5.0
_LEASE = timedelta(seconds=30)
_LONGEST_PAUSE_S = 900
_NOTICE = tables.logout_notice.c


def _lease(connection: Connection) -> Sequence[Any]:
    """Take due rows; a deliverer that dies gives them back when the lease is over."""
    now = utc_now()
    due = (
        select(_NOTICE.jti)
        .where(_NOTICE.next_attempt_at <= now)
        .order_by(_NOTICE.next_attempt_at)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    rows = connection.execute(
        update(tables.logout_notice)
        .where(_NOTICE.jti.in_(due.scalar_subquery()))
        .values(attempts=_NOTICE.attempts + 1, next_attempt_at=now + _LEASE)
        .returning(*_NOTICE)
    ).all()
    return [(row, find_client(connection, row.client_id)) for row in rows]


def _settle(connection: Connection, row: Any, *, told: bool, wanted: bool) -> None:
    """Forget what was told or cannot be told any more, with an audit event; else try again later."""
    now = utc_now()
    if not told and wanted and now - row.created_at < GIVE_UP_AFTER:
        pause = timedelta(seconds=min(_LONGEST_PAUSE_S, 2 ** min(row.attempts, 10)))
        later = update(tables.logout_notice).where(_NOTICE.jti == row.jti).values(next_attempt_at=now + pause)
        connection.execute(later)
        return
    connection.execute(delete(tables.logout_notice).where(_NOTICE.jti == row.jti))
    reason = None if told else "not taken for a day" if wanted else "the app is gone"
    outcome = SUCCESS if told else FAILED
    record(connection, SecurityEvent(WHAT, outcome, account=row.account, client_id=row.client_id, reason=reason))


class BackchannelLogout:
    """The background task that tells."""

    def __init__(
        self,
        database: IdentityDatabase,
        signer: TokenSigner,
        networks: Sequence[Network] = (),
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._database, self._signer, self._networks, self._tls = database, signer, networks, tls

    async def run(self, pause_s: float = 1.0) -> None:
        """Tell until cancelled."""
        while True:
            try:
                while await self.deliver_once():
                    pass
            except UpstreamError:
                get_log().warning("logout notices not readable", part="identity")
            await asyncio.sleep(pause_s)

    async def deliver_once(self) -> int:
        """Tell one batch, all at the same time; returns how many were taken up, told or not."""
        rows = await self._database.run(_lease)
        await asyncio.gather(*(self._tell(row, client) for row, client in rows))
        return len(rows)

    async def _tell(self, row: Any, client: Client | None) -> None:
        uri = client.logout_uri if client is not None else None
        told = client is not None and uri is not None and await self._post(uri, self._token(row, client))
        await self._database.run(lambda connection: _settle(connection, row, told=told, wanted=uri is not None))

    def _token(self, row: Any, client: Client) -> str:
        return self._signer.logout_token(
            subject=row.account,
            client_id=row.client_id,
            sid=row.sid,
            jti=row.jti,
            now=utc_now(),
            alg=client.id_token_algorithm,
        )

    async def _post(self, uri: str, token: str) -> bool:
        """Send a logout token; True when the app says that it took it (§2.8)."""
        url = httpx.URL(uri)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                address = await resolve(url, self._networks)
                status = await self._send(url.copy_with(host=str(address)), url, token)
        except (InteropError, httpx.HTTPError, ssl.SSLError, OSError, TimeoutError) as error:
            get_log().warning("logout not told", part="identity", reason=type(error).__name__)
            return False
        if status not in _TAKEN:
            get_log().warning("logout not taken", part="identity", status=status)
        return status in _TAKEN

    async def _send(self, target: httpx.URL, named: httpx.URL, token: str) -> int:
        with suppress(httpx.RemoteProtocolError):  # what follows the status is not read
            async with httpx.AsyncClient(
                verify=self._tls if self._tls is not None else True,
                follow_redirects=False,
                trust_env=False,
                timeout=_TIMEOUT_S,
            ) as http:
                headers = {"Host": named.netloc.decode("ascii")}
                request = http.build_request(
                    "POST",
                    target,
                    data={"logout_token": token},
                    headers=headers,
                    extensions={"sni_hostname": named.host},
                )
                response = await http.send(request, stream=True)
                await response.aclose()
                return response.status_code
        return 0
