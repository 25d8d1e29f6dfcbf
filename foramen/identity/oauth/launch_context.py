"""Which patient and encounter an authorization is for, what still has to be picked, and what the app is told. Pure.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#launch-context-arrives-with-your-access_token
"""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc6749 import AccessDeniedError

from foramen.identity.oauth.authorization_requests import PendingRequest
from foramen.identity.oauth.launches import Launch
from foramen.identity.oauth.scopes import resource_scopes
from foramen.identity.people.sessions import Session
from foramen.identity.rights.roles import PATIENT

WITH_ENCOUNTER = "launch/encounter"


def patient_of(session: Session, launch: Launch | None, pending: PendingRequest) -> str | None:
    """Return the patient in context: a patient's own, the launched one or the picked one.

    Raises
    ------
    AccessDeniedError
        A patient asks for another's record.
    """
    own = session.account.patient if session.account.role == PATIENT else None
    chosen = launch.patient if launch else pending.patient
    if own is not None and chosen not in (None, own):
        raise AccessDeniedError()
    return own or chosen


def needs_patient(scope: str) -> bool:
    """Whether a scope cannot be granted without a patient in context."""
    granted = scope.split()
    return (
        "launch/patient" in granted
        or WITH_ENCOUNTER in granted
        or any(item.context == "patient" for item in resource_scopes(scope))
    )


def needs_encounter(scope: str, launch: Launch | None, pending: PendingRequest) -> bool:
    """Whether an encounter is still to be picked (or gone without)."""
    known = pending.encounter is not None or (launch is not None and launch.encounter is not None)
    return WITH_ENCOUNTER in scope.split() and not known


def told(launch: Launch | None, pending: PendingRequest, patient: str | None, scope: str) -> dict[str, Any]:
    """Return the launch parameters of the token response."""
    if patient is None or (launch is None and not needs_patient(scope)):
        return {}
    context: dict[str, Any] = {"patient": patient, "need_patient_banner": True}
    if pending.encounter and WITH_ENCOUNTER in scope.split():
        context["encounter"] = pending.encounter
    return context | (launch.parameters() if launch is not None else {})
