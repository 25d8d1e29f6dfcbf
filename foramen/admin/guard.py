"""The door of the administration pages (`foramen.identity.framed.door`): own rights only, nothing that is lent.

What was refused, or hidden by being called absent, leaves an audit event.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Connection

from foramen.admin.layout import message_page
from foramen.admin.page import MAINTAIN_RECORD, MOUNT, Call
from foramen.admin.text import WORDS
from foramen.identity.framed.door import Door, Elsewhere
from foramen.identity.parameters import form_parameters
from foramen.identity.people.accounts import Account
from foramen.identity.rights.administration import record_refusal
from foramen.identity.rights.permissions import own_rights
from foramen.kernel.errors import ForbiddenError, InteropError, NotFoundError

_LINES = ("reason", "note", "redirect_uris", "jwks", "scope")
"""Fields that may have several lines."""
DRIFT = "/apps/images/drift"
"""What archive, index and record disagree about: a page of the image database, for who keeps the system."""


def _rights(connection: Connection, account: Account) -> frozenset[str]:
    return own_rights(connection, account).permissions


@asynccontextmanager
async def _received(call: Call) -> AsyncIterator[Call]:
    yield dataclasses.replace(call, form=await form_parameters(call.request, lines=_LINES))


async def _refused(call: Call, error: InteropError) -> None:
    if isinstance(error, ForbiddenError | NotFoundError):
        account, target = call.account, str(call.request.path_params.get("name", ""))
        reason = f"{call.request.method} {MOUNT}{call.page.path} {' or '.join(call.page.needs)}"
        await call.env.database.run(lambda connection: record_refusal(connection, account, reason, target))


DOOR = Door(
    mount=MOUNT,
    then="admin",
    words=WORDS,
    elsewhere=(Elsewhere("drift", DRIFT, MAINTAIN_RECORD),),
    call=Call,
    rights=_rights,
    received=_received,
    message=message_page,
    told=lambda error: error.message,
    refused=_refused,
)
