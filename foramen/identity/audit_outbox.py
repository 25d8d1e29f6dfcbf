"""AuditEvents are written with the change they record and delivered to the FHIR API afterwards, at least once.

Transactional outbox; deliverers in several processes take different rows (SKIP LOCKED).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import orjson
from sqlalchemy import Connection, bindparam, delete, select, update

from foramen.identity import tables
from foramen.identity.database import IdentityDatabase, utc_now
from foramen.identity.oauth.signing import TokenSigner
from foramen.identity.security_event import SecurityEvent
from foramen.kernel.errors import UpstreamError
from foramen.kernel.log import get_log
from foramen.kernel.outcome import FHIR_JSON
from foramen.kernel.wake import woken_within

CLIENT_ID = "foramen-identity"
_BATCH = 100
_LEASE = timedelta(seconds=30)
_LONGEST_PAUSE_S = 60
_GATHER_S = 0.25
_INSERT = tables.audit_outbox.insert()


def record(connection: Connection, event: SecurityEvent) -> None:
    """Write an event in the transaction of what it records."""
    now = utc_now()
    if event.institutions is None:
        event = replace(event, institutions=_institutions(connection, event))
    connection.execute(_INSERT, {"event": event.resource(now), "attempts": 0, "next_attempt_at": now})


_ACCOUNT = tables.account.c
_BELONGS = select(_ACCOUNT.name, _ACCOUNT.institution).where(_ACCOUNT.name.in_((bindparam("who"), bindparam("whom"))))


def _institutions(connection: Connection, event: SecurityEvent) -> tuple[str, ...]:
    """Return the institution of who acts, then that of the account acted on, as they are now."""
    names = (event.account or "", event.concerns or "")
    # Asked also when nobody is named: a sign-in under an unknown name must cost what one under a known name does.
    rows = connection.execute(_BELONGS, {"who": names[0], "whom": names[1]})
    belongs = {row.name: row.institution for row in rows}
    return tuple(found for name in names if (found := belongs.get(name)))


def _lease(connection: Connection) -> Sequence[Any]:
    """Take due rows; a deliverer that dies gives them back when the lease is over."""
    columns, now = tables.audit_outbox.c, utc_now()
    due = (
        select(columns.id)
        .where(columns.next_attempt_at <= now)
        .order_by(columns.id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(
        update(tables.audit_outbox)
        .where(columns.id.in_(due.scalar_subquery()))
        .values(attempts=columns.attempts + 1, next_attempt_at=now + _LEASE)
        .returning(columns.id, columns.event, columns.attempts)
    ).all()


def _settle(connection: Connection, delivered: list[int], late: list[tuple[int, int]]) -> None:
    columns = tables.audit_outbox.c
    if delivered:
        connection.execute(delete(tables.audit_outbox).where(columns.id.in_(delivered)))
    for row_id, attempts in late:
        pause = timedelta(seconds=min(_LONGEST_PAUSE_S, 2 ** min(attempts, 9)))
        connection.execute(
            update(tables.audit_outbox).where(columns.id == row_id).values(next_attempt_at=utc_now() + pause)
        )


class AuditDelivery:
    """The background task that empties the outbox."""

    def __init__(
        self, database: IdentityDatabase, signer: TokenSigner, http: httpx.AsyncClient, fhir_base: str
    ) -> None:
        self._database, self._signer, self._http = database, signer, http
        self._url = f"{fhir_base}/"
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Deliver soon: something was recorded."""
        self._wake.set()

    async def run(self, pause_s: float = 5.0) -> None:
        """Deliver until cancelled."""
        while True:
            self._wake.clear()
            try:
                while await self.deliver_once():
                    pass
            except UpstreamError:
                get_log().warning("audit outbox not readable", part="identity")
            await woken_within(self._wake, pause_s)
            await asyncio.sleep(_GATHER_S)  # Sign-ins come in bursts: a short pause makes one Bundle of their events.

    async def deliver_once(self) -> int:
        """Deliver one batch; returns how many events arrived."""
        rows = await self._database.run(_lease)
        if not rows:
            return 0
        token = self._signer.access_token(
            subject=CLIENT_ID, client_id=CLIENT_ID, scope="system/AuditEvent.c", now=utc_now(), lifetime_s=300
        )
        headers = {"Authorization": f"Bearer {token.text}", "Content-Type": FHIR_JSON}
        taken = await self._post([row.event for row in rows], headers)
        delivered = [row.id for row, arrived in zip(rows, taken, strict=True) if arrived]
        late = [(row.id, row.attempts) for row, arrived in zip(rows, taken, strict=True) if not arrived]
        await self._database.run(lambda connection: _settle(connection, delivered, late))
        return len(delivered)

    async def _post(self, events: list[dict[str, Any]], headers: dict[str, str]) -> list[bool]:
        """Send events as one batch Bundle; returns for each whether it arrived."""
        entries = [{"resource": event, "request": {"method": "POST", "url": "AuditEvent"}} for event in events]
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
        try:
            response = await self._http.post(self._url, content=orjson.dumps(bundle), headers=headers)
            answers = orjson.loads(response.content)["entry"] if response.status_code == 200 else []
            statuses = [str(answer["response"]["status"]) for answer in answers]
        except (httpx.HTTPError, orjson.JSONDecodeError, KeyError, TypeError):
            return [False] * len(events)
        arrived = [status.startswith("2") for status in statuses]
        if not all(arrived) or len(arrived) != len(events):
            get_log().warning("audit events not accepted", part="identity", status=response.status_code)
        # An answer that does not fit the question tells nothing: better twice than never.
        return arrived if len(arrived) == len(events) else [False] * len(events)
