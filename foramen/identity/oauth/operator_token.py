"""Sign a token for an operator at the command line: whoever may read FORAMEN_HOME/secrets may already do everything.

Claims as everywhere (`foramen.identity.oauth.signing`); needs no running server.
"""

from __future__ import annotations

from foramen.identity.audit_outbox import record
from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.scopes import unknown_scopes
from foramen.identity.oauth.signing import TokenSigner
from foramen.identity.people.accounts import find_account
from foramen.identity.rights.permissions import rights_of
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.access_context import parse_scopes
from foramen.kernel.errors import InvalidRequestError, NotFoundError
from foramen.kernel.settings import Settings

CLIENT_ID = "foramen-cli"


def operator_token(
    settings: Settings,
    database_url: str | None,
    scopes: str,
    *,
    expires_in_s: int = 3600,
    patient: str | None = None,
    user: str | None = None,
) -> str:
    """Return one bearer token for `/fhir` and `/dicom-web`.

    Parameters
    ----------
    database_url : where accounts and the audit live; None signs without an audit event, and then `user` is not possible
    scopes : SMART scopes, separated by spaces
    expires_in_s : lifetime in seconds
    patient : logical id of the patient that `patient/` scopes reach
    user : name of an account to act as

    Raises
    ------
    InvalidRequestError
        A scope means nothing here, or patient/ scopes have no patient.
    NotFoundError
        There is no such active account.
    """
    unknown = unknown_scopes(scopes)
    if unknown or not scopes.split():
        raise InvalidRequestError(f"Not a SMART scope: {unknown[0]}" if unknown else "Name at least one scope")
    patient = patient.removeprefix("Patient/") if patient else None
    if patient is None and any(scope.context == "patient" for scope in parse_scopes(scopes)):
        raise InvalidRequestError("patient/ scopes need a patient")
    if expires_in_s <= 0:
        raise InvalidRequestError("A token lives longer than 0 seconds")
    signer, account, unbounded = TokenSigner(settings), None, user is None
    if database_url is not None:
        with transaction(database_url) as connection:
            account = find_account(connection, user) if user else None
            unbounded = account is None or rights_of(connection, account).manages_institutions
            event = SecurityEvent(
                "operator_token",
                SUCCESS,
                account=account.name if account else None,
                client_id=CLIENT_ID,
                patient=patient,
            )
            record(connection, event)
    if user is not None and account is None:
        raise NotFoundError("There is no such active account")
    token = signer.access_token(
        subject=account.name if account else CLIENT_ID,
        client_id=CLIENT_ID,
        scope=scopes,
        now=utc_now(),
        lifetime_s=expires_in_s,
        patient=patient,
        fhir_user=account.fhir_user if account else None,
        institution=account.institution if account else None,
        every_institution=unbounded,
    )
    return token.text
