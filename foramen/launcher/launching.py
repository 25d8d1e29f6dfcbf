"""Make a launch as an EHR does: bound to app, person and patient, good once, five minutes; audited.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, update
from starlette.requests import Request

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.database import utc_now
from foramen.identity.environment import Environment
from foramen.identity.oauth.clients import find_client
from foramen.identity.oauth.launch_parameters import checked_style_url
from foramen.identity.oauth.launches import Launch, create_launch
from foramen.identity.opaque_tokens import digest
from foramen.identity.parameters import client_address
from foramen.identity.people.accounts import Account
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.errors import InvalidRequestError, NotFoundError
from foramen.launcher.picks import check_encounter, check_patient, logical_id

_LONGEST_INTENT = 256


async def checked_launch(env: Environment, account: Account, client_id: str, form: dict[str, str]) -> Launch:
    """Read the context of a launch from a form, as far as this person may give it.

    Raises
    ------
    InvalidRequestError
        A part of it is missing or not possible.
    """
    if not form.get("patient"):
        raise InvalidRequestError("An EHR launch needs a patient")
    patient = logical_id(form["patient"], "Patient")
    encounter = logical_id(form["encounter"], "Encounter") if form.get("encounter") else None
    intent = form.get("intent", "")
    if len(intent) > _LONGEST_INTENT or not intent.isprintable():
        raise InvalidRequestError("intent is a short text")
    style = form.get("smart_style_url", "")
    launch = Launch(
        client_id=client_id,
        account=account.name,
        patient=patient,
        encounter=encounter,
        intent=intent or None,
        need_patient_banner=form.get("need_patient_banner") == "true",
        smart_style_url=checked_style_url(style) if style else None,
    )
    await check_patient(env, account, patient)
    if encounter is not None:
        await check_encounter(env, account, patient, encounter)
    return launch


def make_launch(connection: Connection, request: Request, account: Account, launch: Launch) -> str:
    """Store a launch and return its token.

    Raises
    ------
    NotFoundError
        There is no such app any more.
    """
    if find_client(connection, launch.client_id) is None:
        raise NotFoundError("There is no such app")
    token = create_launch(connection, launch)
    event = SecurityEvent(
        what="launch",
        outcome=SUCCESS,
        account=account.name,
        client_id=launch.client_id,
        fhir_user=account.fhir_user,
        patient=launch.patient,
        address=client_address(request),
    )
    record(connection, event)
    return token


def let_expire(connection: Connection, token: str) -> None:
    """Let a launch just made be over, as if its five minutes had passed: to see what an app is told then."""
    column = tables.launch.c
    connection.execute(
        update(tables.launch)
        .where(column.launch_digest == digest(token), column.used_at.is_(None))
        .values(expires_at=utc_now() - timedelta(seconds=1))
    )
