"""What a trial knows between its steps: sealed rows that belong to one session and end with it, or after an hour.

Tokens are in it; nothing of it is ever in a URL, a cookie or a log.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select, update

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.opaque_tokens import digest, new_opaque_token
from foramen.identity.sealed_columns import trial_purpose
from foramen.identity.sealing import DataKeys
from foramen.kernel.errors import ConflictError, NotFoundError

LIFETIME = timedelta(hours=1)
MOST = 5
"""Trials one session keeps; the oldest goes."""
MOST_EXCHANGES = 60
"""Exchanges one trial keeps: the whole walk is a dozen, and all of them are sealed and shown each time."""
READY, WAITING, ANSWERED = "ready", "waiting", "answered"


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as they were; `status` 0: there was no answer.

    `step` names what it was for; `sender` is "server" or "browser"; `checks` are findings about the answer:
    (name, whether it is as it should be, what was found).
    """

    step: str
    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] | None = None
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: str = ""
    sender: str = "server"
    faulty: bool = False
    at: str = ""
    checks: list[tuple[str, bool, str]] = field(default_factory=list)


@dataclass(slots=True)
class Trial:
    """One walk through the code flow by one person."""

    id: str
    scope: str
    redirect_uri: str
    aud: str
    launch: str = ""
    fault: str = ""
    consent: bool = True
    phase: str = READY
    state: str = field(default_factory=new_opaque_token)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    nonce: str = field(default_factory=new_opaque_token)
    endpoints: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    patient: str | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    revision: int = 0

    @property
    def is_full(self) -> bool:
        """Whether it can take no further step."""
        return len(self.exchanges) >= MOST_EXCHANGES

    def last(self, step: str) -> Exchange | None:
        """Return the latest exchange of a step."""
        return next((item for item in reversed(self.exchanges) if item.step == step), None)


def _sealed(keys: DataKeys, trial: Trial, session_digest: str) -> str:
    return keys.seal(orjson.dumps(asdict(trial)), trial_purpose(trial.id, session_digest))


def _opened(keys: DataKeys, row: Any, session_digest: str) -> Trial:
    values = orjson.loads(keys.unseal(row.sealed, trial_purpose(row.id, session_digest)))
    exchanges = [Exchange(**item) for item in values.pop("exchanges")]
    for exchange in exchanges:
        exchange.checks = [(str(name), bool(good), str(said)) for name, good, said in exchange.checks]
    return Trial(**{**values, "revision": row.revision}, exchanges=exchanges)


def start(connection: Connection, keys: DataKeys, session_digest: str, trial: Trial) -> None:
    """Keep a new trial; what has run out goes, and the oldest of this session beyond `MOST`."""
    column, now = tables.launch_trial.c, utc_now()
    connection.execute(delete(tables.launch_trial).where(column.expires_at <= now))
    kept = (
        select(column.id)
        .where(column.session_digest == session_digest)
        .order_by(column.created_at.desc())
        .limit(MOST - 1)
        .scalar_subquery()
    )
    connection.execute(
        delete(tables.launch_trial).where(column.session_digest == session_digest, column.id.not_in(kept))
    )
    connection.execute(
        tables.launch_trial.insert().values(
            id=trial.id,
            session_digest=session_digest,
            state_digest=digest(trial.state),
            sealed=_sealed(keys, trial, session_digest),
            revision=0,
            created_at=now,
            expires_at=now + LIFETIME,
        )
    )


def find(connection: Connection, keys: DataKeys, session_digest: str, trial_id: str) -> Trial:
    """Return a trial of this session.

    Raises
    ------
    NotFoundError
        It is over, or another session's, or never was.
    """
    found = _one(connection, keys, session_digest, tables.launch_trial.c.id == trial_id)
    if found is None:
        raise NotFoundError("There is no such trial; it ends with the session and after an hour")
    return found


def find_by_state(connection: Connection, keys: DataKeys, session_digest: str, state: str) -> Trial | None:
    """Return the trial of this session that sent this `state`, or None."""
    return _one(connection, keys, session_digest, tables.launch_trial.c.state_digest == digest(state))


def _one(connection: Connection, keys: DataKeys, session_digest: str, condition: Any) -> Trial | None:
    column = tables.launch_trial.c
    row = connection.execute(
        select(column.id, column.sealed, column.revision).where(
            condition, column.session_digest == session_digest, column.expires_at > utc_now()
        )
    ).one_or_none()
    return _opened(keys, row, session_digest) if row else None


def mine(connection: Connection, keys: DataKeys, session_digest: str) -> list[Trial]:
    """Return the trials of a session, the newest first."""
    column = tables.launch_trial.c
    rows = connection.execute(
        select(column.id, column.sealed, column.revision)
        .where(column.session_digest == session_digest, column.expires_at > utc_now())
        .order_by(column.created_at.desc())
    )
    return [_opened(keys, row, session_digest) for row in rows]


def keep(connection: Connection, keys: DataKeys, session_digest: str, trial: Trial) -> None:
    """Store what a step has changed.

    Raises
    ------
    ConflictError
        Another window was faster, or the trial is over.
    """
    column = tables.launch_trial.c
    changed = connection.execute(
        update(tables.launch_trial)
        .where(column.id == trial.id, column.session_digest == session_digest, column.revision == trial.revision)
        .values(sealed=_sealed(keys, trial, session_digest), revision=trial.revision + 1)
    )
    if changed.rowcount == 0:
        raise ConflictError("The trial was changed in another window; open it again")


def end(connection: Connection, session_digest: str, trial_id: str) -> None:
    """Forget a trial and everything in it."""
    column = tables.launch_trial.c
    connection.execute(
        delete(tables.launch_trial).where(column.id == trial_id, column.session_digest == session_digest)
    )
