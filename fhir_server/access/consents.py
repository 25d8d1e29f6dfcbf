"""The consents of the record, remembered by the process and forgotten with each change of one.

A process forgets at once what it wrote itself, and within milliseconds what another wrote (PostgreSQL NOTIFY). While
that channel is down nothing is remembered: every request reads the consents anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

import asyncpg

from fhir_server.access.consent import ConsentPolicy, Denial, DenialPolicy, denials_of
from fhir_server.store import consents
from fhir_server.store.connections import Connections
from foramen.kernel.access_context import AccessContext
from foramen.kernel.consent_caller import Caller, caller_of
from foramen.kernel.log import get_log

_LIFETIME_S = 60.0
_CALLERS = 512
_CONNECT_TIMEOUT_S = 2.0


class Consents:
    """Gives each caller the policy that the active Consents make."""

    def __init__(self, connections: Connections, url: str, own_url: str) -> None:
        self._connections = connections
        self._url = url
        self._own_url = own_url
        self._denials: list[Denial] | None = None
        self._policies: OrderedDict[Caller, DenialPolicy] = OrderedDict()
        self._generation = 0
        self._read_at = 0.0
        self._listener: asyncpg.Connection | None = None
        self._lock = asyncio.Lock()

    def forget(self) -> None:
        """Drop what is remembered: a Consent changed."""
        self._generation += 1
        self._denials = None
        self._policies.clear()

    async def policy(self, context: AccessContext) -> ConsentPolicy | None:
        """Return what hides resources from this caller, or None when nothing does.

        Raises
        ------
        UpstreamError
            The consents cannot be read: nothing may be shown then.
        """
        denials = await self._current()
        if not denials:
            return None
        caller = caller_of(context)
        found = self._policies.get(caller)
        if found is None:
            found = DenialPolicy(denials, caller, time.time() * 1e6)
            if denials is self._denials:
                self._policies[caller] = found
                if len(self._policies) > _CALLERS:
                    self._policies.popitem(last=False)
        return found or None

    async def denials(self) -> list[Denial]:
        """Return all that patients refuse now.

        Raises
        ------
        UpstreamError
            The consents cannot be read.
        """
        return await self._current()

    async def _current(self) -> list[Denial]:
        if self._denials is not None and self._is_listening() and time.monotonic() - self._read_at < _LIFETIME_S:
            return self._denials
        async with self._lock:
            if not self._is_listening():
                await self._listen()
            elif self._denials is not None and time.monotonic() - self._read_at < _LIFETIME_S:
                return self._denials
            generation, began = self._generation, time.monotonic()
            async with self._connections.lend() as connection:
                found = await consents.active_consents(connection)
                denials = [denial for consent in found for denial in denials_of(consent, self._own_url)]
                roles = {name for d in denials for name in d.limits.actors if name.startswith("PractitionerRole/")}
                people = await consents.practitioners_of(connection, sorted(roles)) if roles else {}
            denials = [denial.with_people(people) for denial in denials]
            if generation == self._generation:  # Nothing changed while it was read.
                self._policies.clear()
                self._denials, self._read_at = denials, began
            return denials

    def _is_listening(self) -> bool:
        return self._listener is not None and not self._listener.is_closed()

    async def _listen(self) -> None:
        self.forget()
        try:
            self._listener = await consents.listen(self._url, self.forget, _CONNECT_TIMEOUT_S)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as exc:
            get_log().warning("changes of consents are not told", exception=type(exc).__name__)

    async def stop(self) -> None:
        """Close the channel."""
        if self._listener is not None and not self._listener.is_closed():
            await self._listener.close(timeout=2)
