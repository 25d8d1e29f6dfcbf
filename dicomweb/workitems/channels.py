"""Open notification connections, and the watch over the record's Tasks that feeds them (DICOM PS3.18 §8.10, §11.13).

One watcher reads which Tasks changed, and only while somebody listens. Before a report is sent, the listener's own
token reads the Task: what the record does not show them, the channel does not tell them. A report that cannot be
decided now is not sent; the record stays the truth, and a client that reconnects asks it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson

from dicomweb.workitems.record import Record
from dicomweb.workitems.reports import kinds, report
from dicomweb.workitems.subscriptions import Subscriber, Subscriptions
from dicomweb.workitems.workitem import Model, Resource, uid_of, workitem_of
from foramen.kernel.errors import InteropError, NotFoundError
from foramen.kernel.fhir_client import FhirClient, next_cursor
from foramen.kernel.log import get_log

EVERY_S = 0.5
_OVERLAP = timedelta(seconds=5)
_MOST_WAITING = 1000
_MOST_KNOWN = 20_000
_PAGES = 20


@dataclass(eq=False, slots=True)
class Channel:
    """One connection: who listens, with what token, and what waits to be sent."""

    subscriber: Subscriber
    record: Record
    waiting: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(_MOST_WAITING))
    is_full: bool = False
    sent: int = 0

    def put(self, model: Model, kind: int, **more: Model) -> None:
        """Let a report be sent; a listener that does not read is disconnected rather than kept in memory."""
        self.sent += 1
        try:
            self.waiting.put_nowait(orjson.dumps(report(model, kind, self.sent, **more)))
        except asyncio.QueueFull:
            self.is_full = True


class Channels:
    """All open connections of this process."""

    def __init__(self, subscriptions: Subscriptions, fhir: FhirClient, base: str) -> None:
        self._subscriptions, self._fhir, self._base = subscriptions, fhir, base
        self._open: set[Channel] = set()
        self._someone = asyncio.Event()
        self._since = self._began = datetime.now(UTC)
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._last: OrderedDict[str, Model] = OrderedDict()

    def add(self, channel: Channel) -> None:
        """Begin to report to a connection."""
        if not self._open:
            self._since = self._began = datetime.now(UTC)
        self._open.add(channel)
        self._someone.set()

    def remove(self, channel: Channel) -> None:
        """Report to it no more."""
        self._open.discard(channel)
        if not self._open:
            self._someone.clear()

    def of(self, subscriber: Subscriber) -> list[Channel]:
        """Return the connections of a subscriber."""
        return [channel for channel in self._open if channel.subscriber == subscriber]

    async def run(self) -> None:
        """Watch the record while somebody listens, until cancelled."""
        while True:
            await self._someone.wait()
            try:
                await self.look()
            except InteropError as error:
                get_log().warning("workitems cannot be watched", reason=error.message)
                await asyncio.sleep(2.0)
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Report what changed since the last look, the oldest change first."""
        now = datetime.now(UTC)
        changes = await self._changes(self._since - _OVERLAP)
        for task in reversed(changes):
            key = (task["id"], task["meta"]["versionId"])
            if key not in self._seen:
                self._seen[key] = None
                if datetime.fromisoformat(task["meta"]["lastUpdated"]) >= self._began:
                    await self._tell(task)
        while len(self._seen) > _MOST_KNOWN:
            self._seen.popitem(last=False)
        self._since = now

    async def _changes(self, since: datetime) -> list[Resource]:
        """Versions of Tasks written since, newest first; deletions are not reported (none of §CC.2.4 is for them)."""
        asked = [("_since", since.isoformat(timespec="milliseconds").replace("+00:00", "Z")), ("_count", "200")]
        found: list[Resource] = []
        cursor: str | None = None
        for _ in range(_PAGES):
            page = await self._fhir.page("Task/_history", [*asked, *([("_cursor", cursor)] if cursor else [])])
            found += [entry["resource"] for entry in page.get("entry", ()) if "resource" in entry]
            cursor = next_cursor(page)
            if cursor is None:
                break
        return found

    async def _tell(self, task: Resource) -> None:
        uid = uid_of(task)
        if uid is None:
            return
        model = workitem_of(task, None, self._base)
        before = self._last.get(task["id"]) or await self._before(task)
        self._last[task["id"]] = model
        self._last.move_to_end(task["id"])
        while len(self._last) > _MOST_KNOWN:
            self._last.popitem(last=False)
        told = kinds(before, model)
        if told:

            def put(channel: Channel) -> None:
                for kind in told:
                    channel.put(model, kind)

            await self.send(model, put)

    async def _before(self, task: Resource) -> Model | None:
        version = int(task["meta"]["versionId"]) if str(task["meta"]["versionId"]).isdigit() else 1
        if version <= 1:
            return None
        with contextlib.suppress(InteropError):
            older = await self._fhir.read(f"Task/{task['id']}/_history/{version - 1}")
            return workitem_of(older, None, self._base)
        return None

    async def send(self, model: Model, put: Callable[[Channel], None]) -> None:
        """Report to every connection whose subscriber wants to hear of a workitem, and may."""
        uid = str(model["00080018"]["Value"][0])
        for channel in list(self._open):
            try:
                wanted = await self._subscriptions.of(channel.subscriber)
                if any(one.concerns(model) for one in wanted):
                    await channel.record.task(uid)
                    put(channel)
            except NotFoundError:
                continue
            except InteropError as error:
                get_log().warning("a workitem's change is not reported", reason=error.message)
