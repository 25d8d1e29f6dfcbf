"""Who wants to hear of which workitems: one row per account, AE title and target (DICOM PS3.18 §11.10-12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomweb.database import Database
from dicomweb.workitems.matching import Path, matches
from dicomweb.workitems.workitem import FILTERED_WORKLIST, WORKLIST, Model, value_of
from foramen.kernel.access_context import AccessContext

_PUT = """INSERT INTO dicomweb.workitem_subscription (subject, client_id, aetitle, workitem, filter)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (subject, client_id, aetitle, workitem) DO UPDATE SET filter = EXCLUDED.filter, suspended = false"""
_REMOVE = """DELETE FROM dicomweb.workitem_subscription
    WHERE subject = $1 AND client_id = $2 AND aetitle = $3 AND workitem = $4 RETURNING 1"""
_SUSPEND = """UPDATE dicomweb.workitem_subscription SET suspended = true
    WHERE subject = $1 AND client_id = $2 AND aetitle = $3 AND workitem = $4 RETURNING 1"""
_LIST = """SELECT workitem, filter, suspended FROM dicomweb.workitem_subscription
    WHERE subject = $1 AND client_id = $2 AND aetitle = $3"""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An AE title of one account: two accounts may use the same title and never hear of each other."""

    subject: str
    client_id: str
    aetitle: str

    @staticmethod
    def of(context: AccessContext, aetitle: str) -> Subscriber:
        """Return the subscriber that a caller speaks for."""
        return Subscriber(context.subject, context.client_id, aetitle)


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription; `keys` are of a filtered worklist."""

    workitem: str
    keys: Mapping[Path, str]
    suspended: bool

    def concerns(self, model: Model) -> bool:
        """Whether a change of this workitem is to be reported."""
        if self.workitem == WORKLIST:
            return not self.suspended
        if self.workitem == FILTERED_WORKLIST:
            return not self.suspended and matches(model, self.keys)
        return bool(self.workitem == value_of(model, "00080018"))


class Subscriptions:
    """Reads and writes of the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, subscriber: Subscriber, workitem: str, keys: Mapping[Path, str]) -> None:
        """Subscribe, or take up a suspended subscription again."""
        stored = {".".join(path): value for path, value in keys.items()}
        await self._change(_PUT, subscriber, workitem, stored)

    async def remove(self, subscriber: Subscriber, workitem: str) -> bool:
        """Unsubscribe; whether there was a subscription."""
        return await self._change(_REMOVE, subscriber, workitem)

    async def suspend(self, subscriber: Subscriber, workitem: str) -> bool:
        """Report no further workitems of a worklist; whether there was a subscription."""
        return await self._change(_SUSPEND, subscriber, workitem)

    async def _change(self, query: str, subscriber: Subscriber, *values: Any) -> bool:
        names = (subscriber.subject, subscriber.client_id, subscriber.aetitle)
        async with self._database.connection() as connection:
            found = await connection.fetchval(query, *names, *values)
        return bool(found)

    async def of(self, subscriber: Subscriber) -> Sequence[Subscription]:
        """Return a subscriber's subscriptions."""
        names = (subscriber.subject, subscriber.client_id, subscriber.aetitle)
        async with self._database.connection() as connection:
            rows = await connection.fetch(_LIST, *names)
        return [
            Subscription(row[0], {tuple(name.split(".")): text for name, text in row[1].items()}, row[2])
            for row in rows
        ]
