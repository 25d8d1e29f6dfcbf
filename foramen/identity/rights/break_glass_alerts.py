"""Tell a URL of the installation of each start of emergency access: at least once, tried again until it is taken.

Transactional outbox; deliverers in several processes take different rows (SKIP LOCKED). The message holds no patient
and no reason text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from sqlalchemy import Connection, select, update

from foramen.identity import tables
from foramen.identity.database import IdentityDatabase, utc_now
from foramen.kernel.errors import InvalidRequestError, UpstreamError
from foramen.kernel.log import get_log
from foramen.kernel.wake import woken_within

_BATCH = 2
_LEASE = timedelta(seconds=30)  # longer than a batch takes at worst
_LONGEST_PAUSE_S = 900
_TIMEOUT_S = 10.0
_ALERT = tables.break_glass_alert.c


def checked_url(url: str | None) -> str | None:
    """Return the URL to tell, or None; a slip of the pen stops the start of the server.

    Raises
    ------
    InvalidRequestError
        FORAMEN_BREAK_GLASS_ALERT_URL is no http(s) URL.
    """
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.fragment:
        raise InvalidRequestError("FORAMEN_BREAK_GLASS_ALERT_URL is an http or https URL")
    return url


def _lease(connection: Connection) -> Sequence[Any]:
    """Take due rows; a deliverer that dies gives them back when the lease is over."""
    now, case = utc_now(), tables.break_glass.c
    due = (
        select(_ALERT.break_glass)
        .where(_ALERT.next_attempt_at <= now)
        .order_by(_ALERT.next_attempt_at)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(
        update(tables.break_glass_alert)
        .where(_ALERT.break_glass.in_(due.scalar_subquery()), case.id == _ALERT.break_glass)
        .values(attempts=_ALERT.attempts + 1, next_attempt_at=now + _LEASE)
        .returning(
            case.id, case.account, case.institution, case.reason_code, case.started_at, case.until, _ALERT.attempts
        )
    ).all()


def _settle(connection: Connection, row: Any, *, delivered: bool) -> None:
    now = utc_now()
    pause = timedelta(seconds=min(_LONGEST_PAUSE_S, 2 ** min(row.attempts, 10)))
    values = (
        {"delivered_at": now, "next_attempt_at": None}
        if delivered
        else {"delivered_at": None, "next_attempt_at": now + pause}
    )
    connection.execute(update(tables.break_glass_alert).where(_ALERT.break_glass == row.id).values(**values))


def message(row: Any) -> dict[str, Any]:
    """Return what is told."""
    return {
        "event": "break-glass.started",
        "id": str(row.id),
        "account": row.account,
        "institution": row.institution,
        "reason": row.reason_code,
        "started": row.started_at.isoformat(),
        "until": row.until.isoformat(),
    }


class BreakGlassAlerts:
    """The background task that tells."""

    def __init__(self, database: IdentityDatabase, http: httpx.AsyncClient, url: str | None) -> None:
        self._database, self._http, self._url = database, http, checked_url(url)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Tell soon: something started."""
        self._wake.set()

    async def run(self, pause_s: float = 5.0) -> None:
        """Tell until cancelled; without a URL there is nothing to do."""
        while self._url is not None:
            self._wake.clear()
            try:
                while await self.deliver_once():
                    pass
            except UpstreamError:
                get_log().warning("break-glass alerts not readable", part="identity")
            await woken_within(self._wake, pause_s)
        await asyncio.Event().wait()

    async def deliver_once(self) -> int:
        """Tell one batch; returns how many were taken."""
        rows = await self._database.run(_lease)
        taken = 0
        for row in rows:
            delivered = await self._post(orjson.dumps(message(row)))
            await self._database.run(lambda connection: _settle(connection, row, delivered=delivered))  # noqa: B023
            taken += delivered
        return taken

    async def _post(self, content: bytes) -> bool:
        headers = {"Content-Type": "application/json"}
        try:
            response = await self._http.post(
                self._url or "", content=content, headers=headers, timeout=_TIMEOUT_S, follow_redirects=False
            )
        except httpx.HTTPError:
            get_log().warning("break-glass alert not delivered", part="identity")
            return False
        if not response.is_success:
            get_log().warning("break-glass alert not taken", part="identity", status=response.status_code)
        return response.is_success
