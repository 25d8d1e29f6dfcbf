"""The door of the image database (`foramen.identity.framed.door`): rights with what is lent; forms that bring files.

What the door refuses leaves an audit event; the record and the gateway have left their own of what they refused.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Connection

from foramen.identity.audit_outbox import record
from foramen.identity.framed.door import Door, Elsewhere
from foramen.identity.parameters import client_address, form_parameters
from foramen.identity.people.accounts import Account
from foramen.identity.rights.permissions import rights_of
from foramen.identity.security_event import REFUSED, SecurityEvent
from foramen.image_database.layout import message_page
from foramen.image_database.page import MAINTAIN, MOUNT, Call
from foramen.image_database.receiving import receive_files
from foramen.image_database.text import WORDS
from foramen.kernel.errors import InteropError


def _rights(connection: Connection, account: Account) -> frozenset[str]:
    return rights_of(connection, account).permissions


@asynccontextmanager
async def _received(call: Call) -> AsyncIterator[Call]:
    if not call.page.files:
        yield dataclasses.replace(call, form=await form_parameters(call.request))
        return
    form, folder = await receive_files(call.request, call.env.settings)
    try:
        yield dataclasses.replace(call, form=form, folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _refused(call: Call, error: InteropError) -> None:
    if set(call.page.needs) & call.permissions:
        return
    event = SecurityEvent(
        what="images",
        outcome=REFUSED,
        account=call.account.name,
        fhir_user=call.account.fhir_user,
        address=client_address(call.request),
        reason=f"{call.request.method} {MOUNT}{call.page.path} {' or '.join(call.page.needs)}",
    )
    await call.env.database.run(lambda connection: record(connection, event))


DOOR = Door(
    mount=MOUNT,
    then="images",
    words=WORDS,
    elsewhere=(Elsewhere("administration", "/apps/admin/", MAINTAIN),),
    call=Call,
    rights=_rights,
    received=_received,
    message=message_page,
    told=lambda error: error.message if error.status == 400 else "",
    refused=_refused,
)
