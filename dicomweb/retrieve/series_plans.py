"""Whose frames of a series may be had, decided once a second: a viewer asks for a thousand of them in that time.

The access of one token to one series is read together with its instances, by the same statement as a single request,
and holds until what decided is `MAX_AGE_S` old: Consents, institutions and released output are no newer in any other
answer (ADR 0040), and a study that was corrected, rejected or deleted is gone within the same second. The token itself
is verified on every request. ADR 0043
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise

from dicomweb.retrieve.stored_files import StoredFiles
from dicomweb.study_index import IndexedInstance, StudyIndex
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError

MAX_AGE_S = 1.0
_WORTH = 3
"""So many requests within a second are looked up by themselves; the next one reads the series."""
_PLANS = 64
_MOST_INSTANCES = 20_000
"""Of all plans together; what a larger series holds is looked up one by one."""


@dataclass(slots=True)
class _Plan:
    """What one token may have of one series, until then; `asked` counts requests since `since`."""

    context: AccessContext
    since: float
    asked: int = 0
    until: float = -math.inf
    instances: dict[str, IndexedInstance] = field(default_factory=dict)
    after: dict[str, IndexedInstance] = field(default_factory=dict)
    """Of an instance, the next one of the series, in the order of a search."""
    reading: asyncio.Task[None] | None = None

    def is_busy(self, now: float) -> bool:
        """Count a request that no valid plan answers; whether reading the series pays."""
        if now - self.since > 2 * MAX_AGE_S:
            self.since, self.asked = now, 0
        self.asked += 1
        return self.asked > _WORTH


class SeriesPlans:
    """Finds single instances as a token may have them."""

    def __init__(self, index: StudyIndex, files: StoredFiles) -> None:
        self._index, self._files = index, files
        self._plans: OrderedDict[tuple[str, str, str, str], _Plan] = OrderedDict()

    async def instance(self, context: AccessContext, study: str, series: str, instance: str) -> IndexedInstance:
        """Return one instance.

        Raises
        ------
        NotFoundError
            Unknown or not permitted: the two cannot be told apart.
        """
        now = time.monotonic()
        plan = self._plan((context.subject, context.token_id, study, series), context, now)
        if now < plan.until:
            plan.asked += 1
        elif plan.is_busy(now):
            try:
                await self._read(plan, study, series)
            except InteropError:  # The lookup says it again, in the words of this instance.
                plan.instances = {}
        found = plan.instances.get(instance) if time.monotonic() < plan.until else None
        return found or (await self._index.instances(context, study, series, instance))[0]

    def ready(self, context: AccessContext, study: str, series: str, instance: str) -> IndexedInstance | None:
        """Return one instance as it was decided within the last second; None: `instance` has to look."""
        plan = self._plans.get((context.subject, context.token_id, study, series))
        if plan is None or not (plan.context is context or plan.context == context) or time.monotonic() >= plan.until:
            return None
        plan.asked += 1
        return plan.instances.get(instance)

    def after(self, context: AccessContext, one: IndexedInstance) -> IndexedInstance | None:
        """Return the instance that follows one that `ready` gave; None: it is the last, or its plan is gone."""
        plan = self._plans.get((context.subject, context.token_id, one.study_instance_uid, one.series_instance_uid))
        return None if plan is None else plan.after.get(one.sop_instance_uid)

    def _plan(self, key: tuple[str, str, str, str], context: AccessContext, now: float) -> _Plan:
        known = self._plans.get(key)
        if known is not None and (known.context is context or known.context == context):
            return known
        self._plans[key] = plan = _Plan(context, now)
        while len(self._plans) > _PLANS:
            self._plans.popitem(last=False)
        return plan

    async def _read(self, plan: _Plan, study: str, series: str) -> None:
        """Read the series, once for all who wait; it goes on when one of them does not wait any more."""
        if plan.reading is None or plan.reading.done():
            plan.reading = asyncio.create_task(self._read_once(plan, study, series), name="dicomweb-series-plan")
            plan.reading.add_done_callback(_taken_note)
        await asyncio.shield(plan.reading)

    async def _read_once(self, plan: _Plan, study: str, series: str) -> None:
        found, as_of = await self._index.decided(plan.context, study, series, None)
        held = sum(len(one.instances) for one in self._plans.values() if one is not plan)
        fits = held + len(found) <= _MOST_INSTANCES
        if not fits:
            self._forget(time.monotonic())
        else:
            await self._files.know(found)
        plan.instances = {one.sop_instance_uid: one for one in found} if fits else {}
        plan.after = {one.sop_instance_uid: following for one, following in pairwise(found)} if fits else {}
        plan.since, plan.asked, plan.until = time.monotonic(), 0, as_of + MAX_AGE_S

    def _forget(self, now: float) -> None:
        """Forget what has run out."""
        for key in [key for key, plan in self._plans.items() if plan.until < now and plan.instances]:
            del self._plans[key]


def _taken_note(task: asyncio.Task[None]) -> None:
    """Take note of how it ended: whoever waited was told, and perhaps nobody did."""
    if not task.cancelled():
        task.exception()
