"""Audit of single images: one AuditEvent for what a token takes of a study within a second, durable before any of it.

DICOM PS3.15 §A.5.3.3, A.5.3.6 and A.5.3.7 audit the access to the instances of a study by one message: when it begins,
and with the number of instances when it is done. Here the event is committed, and held back, before the first of the
requests is answered: who, which study, whose, when. How many followed is added when the second is over; an event that
a killed process left is sent without. A refusal, and a request that brings a trace id, has an event of its own.
ADR 0043
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dicomweb.audit import AuditTrail
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError
from foramen.kernel.log import get_log

WINDOW_S = 1.0
PATIENT = "foramen.patient"
"""Where a handler that knows whose study it was leaves it in the scope of the request."""
Event = dict[str, Any]
_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Window:
    """Requests that one event covers, until `ends` (`time.monotonic`)."""

    context: AccessContext
    study: str
    ends: float
    opening: asyncio.Task[Event]
    name: str
    requests: int = 0
    instances: set[str] = field(default_factory=set)

    @property
    def is_durable(self) -> bool:
        """Whether its event was written."""
        return self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None

    def covers(self, context: AccessContext, now: float) -> bool:
        return now < self.ends and (self.context is context or self.context == context)


class AuditWindows:
    """Gathers requests for single instances of a study."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail
        self._open: dict[_Key, _Window] = {}
        self._over: list[_Window] = []
        self._counting: asyncio.Task[None] | None = None

    async def record(
        self, context: AccessContext, study: str, interaction: str, instance: str, make: Callable[[], Awaitable[Event]]
    ) -> None:
        """Return when an event that covers a successful request is durable.

        Parameters
        ----------
        make : the AuditEvent; asked for the first request of a second only

        Raises
        ------
        UpstreamError
            It could not be written: then the request must not be answered.
        """
        key, now = (context.subject, context.token_id, study, interaction), time.monotonic()
        window = self._open.get(key)
        if window is None or not window.covers(context, now):
            if window is not None:
                self._over.append(window)
            name = secrets.token_hex(16)
            opening = asyncio.create_task(self._begin(name, make), name="dicomweb-audit-window")
            self._open[key] = window = _Window(context, study, now + WINDOW_S, opening, name)
        try:
            if window.opening.done():
                window.opening.result()  # A request that comes between the failure and its first waiter fails too.
            else:
                # It goes on when this request is given up: others wait for it.
                await asyncio.shield(window.opening)
        except InteropError:
            if self._open.get(key) is window:
                del self._open[key]
            raise
        window.requests += 1
        window.instances.add(instance)
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._count(), name="dicomweb-audit-counts")

    def join(self, context: AccessContext, study: str, interaction: str, instance: str, now: float) -> bool:
        """Count a successful request in an event that is durable already; False: `record` has to see to one."""
        window = self._open.get((context.subject, context.token_id, study, interaction))
        if window is None or not window.covers(context, now) or not window.is_durable:
            return False
        window.requests += 1
        window.instances.add(instance)
        return True

    async def _begin(self, name: str, make: Callable[[], Awaitable[Event]]) -> Event:
        event = await make()
        await self._trail.record(event, held_as=name)
        return event

    async def _count(self) -> None:
        """Complete what is over, until nothing is open."""
        while self._open or self._over:
            await asyncio.sleep(WINDOW_S / 4)
            now = time.monotonic()
            for key in [key for key, window in self._open.items() if now >= window.ends]:
                self._over.append(self._open.pop(key))
            await self._complete()

    async def _complete(self) -> None:
        over, self._over = self._over, []
        self._over += [window for window in over if not window.opening.done()]
        begun = [window for window in over if window.opening.done() and window.requests]
        if not begun:
            return
        try:
            await self._trail.complete({window.name: _counted(window) for window in begun})
        except InteropError as error:  # They are sent all the same, when their time is up.
            get_log().warning("audit events are sent without a count", reason=error.message, count=len(begun))

    async def close(self) -> None:
        """Complete all."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait([self._counting])
        self._over += self._open.values()
        self._open = {}
        await self._complete()


def _counted(window: _Window) -> Event:
    """Return the event with what it covered; R4 has `period` for the time, `entity.detail` for numbers."""
    event = window.opening.result()
    end = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    detail = [
        {"type": "requests", "valueString": str(window.requests)},
        {"type": "instances", "valueString": str(len(window.instances))},
    ]
    entity = [
        {**one, "detail": detail} if one.get("what", {}).get("identifier", {}).get("value") == window.study else one
        for one in event["entity"]
    ]
    return event | {"period": {"start": event["recorded"], "end": end}, "entity": entity}
