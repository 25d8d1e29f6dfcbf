"""Statements of the job table: submit, claim with a lease, renew, checkpoint, finish, expire.

Times are the database's own, so that the clocks of web processes do not matter. Whoever writes names the attempt it
holds (`holder`, `attempt`): a process that lost its lease without noticing can change nothing any more.
"""
# ruff: noqa: S608 - the text is built from our own names; every value is a parameter

from __future__ import annotations

from datetime import datetime
from typing import Any

from fhir_server.store.sealed_content import sealing
from foramen.kernel.errors import InteropError, UpstreamError

_SEALED = b"v2:"
"""What begins so is sealed: no JSON object does."""
_TELLING = frozenset({("async", "request"), ("async", "state"), ("export", "request")})
"""Kinds and columns that hold bodies, answers and search values; the place an export has reached tells nobody."""
_PURPOSE = "fhir job {} {}"
_COLUMNS = (
    "id, kind, status, request, state, progress, owner, owner_client, owner_subject, issues, cancelled, attempt,"
    " fruitless, submitted, finished, expires"
)
_CLAIM = f"""
UPDATE fhir.job SET status = 'running', holder = $2, lease_until = now() + make_interval(secs => $3),
    attempt = attempt + 1, fruitless = fruitless + 1
WHERE id = (
    SELECT id FROM fhir.job WHERE kind = ANY($1) AND (lease_until IS NULL OR lease_until < now())
        AND status IN ('queued', 'running')
    ORDER BY submitted LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING {_COLUMNS}
"""
_HELD = "id = $1 AND holder = $2 AND attempt = $3 AND status = 'running'"


async def insert(
    connection: Any, job_id: str, kind: str, request: bytes, owner: bytes, client: str, subject: str
) -> None:
    """Add a job; it is committed with the return, unless the caller has a transaction open."""
    await connection.execute(
        "INSERT INTO fhir.job (id, kind, status, request, state, owner, owner_client, owner_subject)"
        " VALUES ($1, $2, 'queued', $3, '{}', $4, $5, $6)",
        job_id,
        kind,
        _sealed(request, kind, job_id, "request"),
        owner,
        client,
        subject,
    )


async def find(connection: Any, job_id: str) -> Any | None:
    """Return a job's row."""
    return _opened(await connection.fetchrow(f"SELECT {_COLUMNS} FROM fhir.job WHERE id = $1", job_id))


async def count_open(connection: Any, kind: str, client: str) -> int:
    """Count a client's jobs of a kind that are not finished."""
    found = await connection.fetchval(
        "SELECT count(*) FROM fhir.job WHERE kind = $1 AND owner_client = $2 AND status IN ('queued', 'running')",
        kind,
        client,
    )
    return int(found)


async def claim(connection: Any, kinds: list[str], holder: str, lease_s: float) -> Any | None:
    """Take the oldest job that nobody holds, or None."""
    return _opened(await connection.fetchrow(_CLAIM, kinds, holder, lease_s))


async def renew(connection: Any, ids: list[str], holder: str, lease_s: float) -> dict[str, bool]:
    """Renew the leases of these jobs; returns those still held, and whether each is to be cancelled."""
    records = await connection.fetch(
        "UPDATE fhir.job SET lease_until = now() + make_interval(secs => $3)"
        " WHERE id = ANY($1) AND holder = $2 AND status = 'running' RETURNING id, cancelled",
        ids,
        holder,
        lease_s,
    )
    return {record["id"]: record["cancelled"] for record in records}


async def save(
    connection: Any, job_id: str, holder: str, attempt: int, state: bytes | None, progress: str | None, kind: str = ""
) -> bool | None:
    """Write a checkpoint; returns whether the job is to be cancelled, or None when it is no longer held."""
    found: bool | None = await connection.fetchval(
        "UPDATE fhir.job SET state = coalesce($4, state), progress = coalesce($5, progress),"
        " fruitless = CASE WHEN $4::bytea IS NULL THEN fruitless ELSE 0 END"
        f" WHERE {_HELD} RETURNING cancelled",
        job_id,
        holder,
        attempt,
        None if state is None else _sealed(state, kind, job_id, "state"),
        progress,
    )
    return found


async def finish(
    connection: Any, job_id: str, holder: str, attempt: int, status: str, issues: bytes | None, lifetime_s: float
) -> bool:
    """Close a job; False when it is no longer held."""
    found = await connection.fetchval(
        "UPDATE fhir.job SET status = $4, issues = $5, finished = now(), holder = NULL, lease_until = NULL,"
        f" expires = now() + make_interval(secs => $6) WHERE {_HELD} RETURNING true",
        job_id,
        holder,
        attempt,
        status,
        issues,
        lifetime_s,
    )
    return bool(found)


async def release(connection: Any, job_id: str, holder: str, attempt: int, pause_s: float, *, counted: bool) -> None:
    """Give a job back, to be taken up from its checkpoint by any process after a pause; `counted` as an attempt."""
    await connection.execute(
        "UPDATE fhir.job SET holder = NULL, lease_until = now() + make_interval(secs => $4),"
        f" fruitless = CASE WHEN $5 THEN fruitless ELSE fruitless - 1 END WHERE {_HELD}",
        job_id,
        holder,
        attempt,
        pause_s,
        counted,
    )


async def cancel(connection: Any, job_id: str, lifetime_s: float) -> str | None:
    """Ask for a job's end; one that waits ends at once. Returns the status it has then, None when there is none."""
    status: str | None = await connection.fetchval(
        "UPDATE fhir.job SET cancelled = true,"
        " status = CASE WHEN status = 'running' AND lease_until > now() THEN status ELSE 'cancelled' END,"
        " finished = coalesce(finished, now()), expires = now() + make_interval(secs => $2)"
        " WHERE id = $1 RETURNING status",
        job_id,
        lifetime_s,
    )
    return status


async def expired(connection: Any, limit: int) -> list[Any]:
    """Jobs whose time is over: (id, kind)."""
    found: list[Any] = await connection.fetch(
        "SELECT id, kind FROM fhir.job WHERE status NOT IN ('queued', 'running') AND expires < now() LIMIT $1", limit
    )
    return found


async def remove(connection: Any, ids: list[str]) -> None:
    """Delete finished jobs."""
    await connection.execute("DELETE FROM fhir.job WHERE id = ANY($1) AND status NOT IN ('queued', 'running')", ids)


async def now(connection: Any) -> datetime:
    """Return the database's clock."""
    found: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return found


async def of_kinds(connection: Any, kinds: tuple[str, ...]) -> list[Any]:
    """Return id, kind, status, request and state of all jobs of some kinds."""
    found = await connection.fetch(
        "SELECT id, kind, status, request, state FROM fhir.job WHERE kind = ANY($1) ORDER BY submitted", list(kinds)
    )
    return [_opened(record) for record in found]


def _sealed(content: bytes, kind: str, job_id: str, column: str) -> bytes:
    """Seal what a job was asked for and where it is, where that may hold a number (`_TELLING`, or a known system)."""
    own = sealing()
    if own is None or ((kind, column) not in _TELLING and not own.blind.may_be_in(content)):
        return content
    return own.keys.seal(content, _PURPOSE.format(job_id, column)).encode()


def _opened(record: Any) -> Any:
    """Return a job's row with what is sealed in it opened."""
    if record is None:
        return None
    found = dict(record)
    for column in ("request", "state"):
        content = bytes(found[column])
        if content.startswith(_SEALED):
            found[column] = opened(content, found["id"], column)
    return found


def opened(content: bytes, job_id: str, column: str) -> bytes:
    """Open one column.

    Raises
    ------
    InteropError
        The keys are not open in this process, or do not fit.
    """
    own = sealing()
    if own is None:
        raise InteropError("A job is sealed, and its keys are not open in this process")
    return own.keys.unseal(content.decode(), _PURPOSE.format(job_id, column))


async def reseal(connection: Any) -> tuple[int, int]:
    """Seal the columns again with the key and cipher of now; returns how many, and how many no key opens."""
    own, done, unreadable = sealing(), 0, 0
    for record in await connection.fetch("SELECT id, request, state FROM fhir.job") if own is not None else ():
        for column in ("request", "state"):
            was = bytes(record[column])
            if own is None or not was.startswith(_SEALED) or own.keys.is_current(was.decode()):
                continue
            try:
                plain = opened(was, record["id"], column)
                now = own.keys.seal(plain, _PURPOSE.format(record["id"], column)).encode()
            except UpstreamError:
                raise
            except InteropError:
                unreadable += 1
                continue
            text = f"UPDATE fhir.job SET {column} = $3 WHERE id = $1 AND {column} = $2"
            done += (await connection.execute(text, record["id"], was, now)) == "UPDATE 1"
    return done, unreadable
