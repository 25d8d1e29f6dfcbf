"""A job as the one that runs it sees it (`Job`) and as the one that asks for it sees it (`JobState`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from fhir_server.store import jobs
from fhir_server.store.connections import Connections
from foramen.kernel.access_context import AccessContext, parse_scopes
from foramen.kernel.errors import Issue

OPEN = ("queued", "running")


class JobCancelledError(Exception):
    """The job's owner wants it to end; what was checkpointed is thrown away."""


class JobLostError(Exception):
    """Another process holds the job now: this one must not touch it any more."""


@dataclass(frozen=True, slots=True)
class JobState:
    """What is known of a job. `status` is queued, running, completed, failed or cancelled."""

    id: str
    kind: str
    status: str
    request: dict[str, Any]
    state: dict[str, Any]
    progress: str
    owner: AccessContext
    issues: tuple[Issue, ...]
    submitted: datetime
    finished: datetime | None
    expires: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether it still waits or runs."""
        return self.status in OPEN


@dataclass(slots=True)
class Job:
    """A claimed job. `state` is its last checkpoint, empty at the first attempt; `attempt` counts from 1."""

    id: str
    kind: str
    request: dict[str, Any]
    state: dict[str, Any]
    owner: AccessContext
    attempt: int
    connections: Connections
    """Database connections for jobs, apart from those that serve requests."""
    _holder: str = ""
    _saved: Callable[[], Awaitable[None]] | None = field(default=None)

    async def save(
        self, state: dict[str, Any] | None = None, progress: str | float | None = None, *, connection: Any = None
    ) -> None:
        """Write a checkpoint and a progress text (a number is a share from 0 to 1).

        Parameters
        ----------
        connection : writes inside this connection's open transaction, so that work and checkpoint commit together

        Raises
        ------
        JobCancelledError
            The job is to end; let it pass.
        JobLostError
            The lease was lost; let it pass. With `connection`, the transaction must roll back.
        """
        if connection is not None:
            found = await self._write(connection, state, progress)
        else:
            async with self.connections.lend() as own:
                found = await self._write(own, state, progress)
        if found is None:
            raise JobLostError
        if found:
            raise JobCancelledError
        if state is not None:
            self.state = state

    async def _write(self, connection: Any, state: dict[str, Any] | None, progress: str | float | None) -> bool | None:
        text = f"{progress:.0%}" if isinstance(progress, float | int) else progress
        encoded = None if state is None else orjson.dumps(state)
        return await jobs.save(connection, self.id, self._holder, self.attempt, encoded, text, self.kind)


def owner_bytes(context: AccessContext) -> bytes:
    """Write down who submitted a job, so that it runs later with exactly that access."""
    who = ("subject", "client_id", "fhir_user", "institution", "lenders")
    names = (*who, "scope_text", "patient", "encounter", "token_id", "every_institution")
    return orjson.dumps({name: getattr(context, name) for name in names} | {"scopes": [str(s) for s in context.scopes]})


def owner_of(content: bytes) -> AccessContext:
    """Read what `owner_bytes` wrote."""
    data = orjson.loads(content)
    data["scopes"] = parse_scopes(" ".join(data["scopes"]))
    data["lenders"] = tuple(data.get("lenders", ()))
    return AccessContext(**data)


def state_of(record: Any) -> JobState:
    """Read a row of the job table."""
    issues = orjson.loads(record["issues"]) if record["issues"] else []
    return JobState(
        record["id"],
        record["kind"],
        "cancelled" if record["cancelled"] else record["status"],
        orjson.loads(record["request"]),
        orjson.loads(record["state"]),
        record["progress"],
        owner_of(record["owner"]),
        tuple(Issue(code, text, tuple(where)) for code, text, where in issues),
        record["submitted"],
        record["finished"],
        record["expires"],
    )
