"""The authorization endpoint's decisions: validate; sign in → patient → encounter → consent → code, step by step.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html; OpenID Connect Core §3.1.2.1 (prompt, max_age)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from authlib.oauth2.rfc6749 import (
    AccessDeniedError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Error,
    UnsupportedResponseTypeError,
)
from authlib.oidc.core.errors import ConsentRequiredError, InteractionRequiredError, LoginRequiredError
from sqlalchemy import Connection

from foramen.identity.audit_outbox import record
from foramen.identity.bounded_audit import record_refusal
from foramen.identity.database import utc_now
from foramen.identity.environment import Environment
from foramen.identity.oauth.authorization_requests import PendingRequest, bind_session, finish_request, new_request
from foramen.identity.oauth.authorization_server import Authorization, FormRequest
from foramen.identity.oauth.clients import Client
from foramen.identity.oauth.consents import is_impersonable, remembered_scope
from foramen.identity.oauth.launch_context import needs_encounter, needs_patient, patient_of, told
from foramen.identity.oauth.launches import Launch, find_launch, use_launch
from foramen.identity.oauth.scopes import grant, resource_scopes, within
from foramen.identity.people.sessions import Session
from foramen.identity.rights.permissions import rights_of
from foramen.identity.security_event import REFUSED, SecurityEvent

_PROMPTS = ("none", "login", "consent", "select_account")
_NOT_SUPPORTED = ("request", "request_uri", "registration")


class Step(Enum):
    """Where the browser goes next."""

    LOGIN = "login"
    PATIENT = "patient"
    ENCOUNTER = "encounter"
    CONSENT = "consent"
    REDIRECT = "redirect"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Progress:
    """The next step: a page of ours, a redirect to the app, or an error page where no redirect URI is trusted."""

    step: Step
    request_id: str = ""
    location: str = ""
    detail: str = ""
    client: Client | None = None
    scope: str = ""
    patient: str | None = None


def begin(
    env: Environment,
    connection: Connection,
    parameters: dict[str, str],
    address: str | None,
    *,
    pushed: bool = False,
) -> Progress | tuple[str, PendingRequest]:
    """Validate an authorization request; returns it with its id, not stored yet, or how it failed."""
    server = env.server(connection)
    form = FormRequest(parameters, {}, "GET", address)
    try:
        if parameters.get("response_type") not in (None, "code"):
            form.payload.data["response_type"] = "unsupported"  # Authlib repeats it in a text with a strict alphabet
        server.get_consent_grant(form)
        if form.client.require_pushed and not pushed:
            raise InvalidRequestError("This client has to push its authorization requests (RFC 9126)")
        check_smart_parameters(env, parameters)
    except OAuth2Error as error:
        refusal = _plainly_worded(error)
        refusal.state = parameters.get("state")
        if refusal.redirect_uri is None and form.client is not None:
            refusal.redirect_uri = parameters["redirect_uri"]
        return _refused(env, connection, form, refusal)
    return new_request(form.client.client_id, parameters)


def _plainly_worded(error: OAuth2Error) -> OAuth2Error:
    """Say in one sentence what Authlib says in two that do not fit together."""
    if not isinstance(error, UnsupportedResponseTypeError):
        return error
    return OAuth2Error("Only response_type code is supported", error=error.error, redirect_uri=error.redirect_uri)


def check_smart_parameters(env: Environment, parameters: dict[str, str]) -> None:
    """Check what SMART and OpenID Connect add to RFC 6749; the redirect URI is trusted by now."""
    scope = parameters.get("scope", "")
    if not scope:
        raise InvalidScopeError()
    audience = parameters.get("aud", "").rstrip("/")
    if audience != env.settings.fhir_base and (audience or resource_scopes(scope)):
        raise InvalidRequestError("aud must be the FHIR base URL")
    if "launch" in parameters and "launch" not in scope.split():
        raise InvalidRequestError("The launch parameter needs scope launch")
    if parameters.get("response_mode", "query") != "query":
        raise InvalidRequestError("Only response_mode query is supported")
    max_age = parameters.get("max_age", "0")
    if not (max_age.isascii() and max_age.isdecimal() and len(max_age) < 10):
        raise InvalidRequestError("max_age is a number of seconds")
    prompts = parameters.get("prompt", "").split()
    if any(prompt not in _PROMPTS for prompt in prompts) or ("none" in prompts and len(prompts) > 1):
        raise InvalidRequestError("The prompt is not understood")
    if any(name in parameters for name in _NOT_SUPPORTED):
        raise InvalidRequestError("Request objects are not supported")


def _refused(env: Environment, connection: Connection, form: FormRequest, error: OAuth2Error) -> Progress:
    client = form.client if isinstance(form.client, Client) else None
    account = form.authorization.account.name if form.authorization else None
    event = SecurityEvent(
        what="authorize",
        outcome=REFUSED,
        account=account,
        client_id=client.client_id if client else None,
        address=form.address,
        reason=error.error,
    )
    if account is None:
        record_refusal(connection, event)
    else:
        record(connection, event)
    location = env.server(connection).error_redirect(error)
    if location is None:
        return Progress(Step.ERROR, detail=f"{error.error}: {error.get_error_description()}")
    return Progress(Step.REDIRECT, location=location)


def proceed(
    env: Environment,
    connection: Connection,
    request_id: str,
    pending: PendingRequest,
    session: Session | None,
    address: str | None,
    *,
    denied: bool = False,
) -> Progress:
    """Do the next step of a request; the last one issues the code.

    `session` was read with a lock: neither it nor its account's rights end before the code is there to be revoked.
    """
    client = env.server(connection).approved_client(pending.client_id)
    if client is None:
        return Progress(Step.ERROR, detail="invalid_client")
    prompts = pending.parameters.get("prompt", "").split()
    form = FormRequest(pending.parameters, {}, "GET", address)
    form.client = client
    try:
        if session is None or _sign_in_again(pending, session, prompts):
            if "none" in prompts:
                raise LoginRequiredError()
            return Progress(Step.LOGIN, request_id, client=client)
        pending = bind_session(connection, pending, session.session_digest)
        launch, scope = _launch_and_scope(connection, client, pending, session)
        form.authorization = Authorization(session, scope)
        if denied:
            raise AccessDeniedError()
        patient = patient_of(session, launch, pending)
        missing = _missing_step(launch, pending, scope, patient)
        if missing is not None and "none" in prompts:
            raise InteractionRequiredError()
        agreed = None if missing else _agreed_scope(connection, client, pending, session, scope, prompts)
        if agreed is None:
            if "none" in prompts:
                raise ConsentRequiredError()
            return Progress(missing or Step.CONSENT, request_id, client=client, scope=scope, patient=patient)
        form.authorization = Authorization(session, agreed)
        return _issue_code(env, connection, form, pending, launch, patient)
    except OAuth2Error as error:
        error.redirect_uri, error.state = pending.parameters["redirect_uri"], pending.parameters.get("state")
        finish_request(connection, pending)
        return _refused(env, connection, form, error)


def _sign_in_again(pending: PendingRequest, session: Session, prompts: list[str]) -> bool:
    """Whether the app wants the person to prove anew who they are (OpenID Connect Core §3.1.2.1, §3.1.2.3).

    Whoever did so after the request was made has done it.
    """
    proved_at = session.authenticated_at or session.signed_in_at
    if proved_at >= pending.created_at:
        return False
    max_age = pending.parameters.get("max_age")
    too_old = max_age is not None and proved_at + timedelta(seconds=int(max_age)) < utc_now()
    return too_old or bool({"login", "select_account"} & set(prompts))


def _launch_and_scope(
    connection: Connection, client: Client, pending: PendingRequest, session: Session
) -> tuple[Launch | None, str]:
    """Resolve the launch and decide what may be granted to this person."""
    token, launch = pending.parameters.get("launch"), None
    if token is not None:
        launch = find_launch(connection, token, client.client_id)
        if launch is None or launch.account != session.account.name:
            raise InvalidRequestError("The launch is unknown, used, expired or meant for another user")
    rights = rights_of(connection, session.account, held=True)
    administrator = rights.maintains_record and session.has_second_factor
    scope = grant(
        pending.parameters["scope"], client.scope, rights.scopes, ("patient", "user"), administrator=administrator
    )
    if launch is None:
        scope = " ".join(part for part in scope.split() if part != "launch")
    if not scope:
        raise InvalidScopeError()
    return launch, scope


def _missing_step(launch: Launch | None, pending: PendingRequest, scope: str, patient: str | None) -> Step | None:
    """Return the page that is still needed to know what the app is opened for, or None."""
    if needs_patient(scope) and patient is None:
        return Step.PATIENT
    return Step.ENCOUNTER if needs_encounter(scope, launch, pending) else None


def _agreed_scope(
    connection: Connection, client: Client, pending: PendingRequest, session: Session, scope: str, prompts: list[str]
) -> str | None:
    """Return what the person agreed to, now or before, or None when they have to be asked."""
    if pending.consented is not None:
        agreed = within(scope, " ".join(pending.consented))
        if not agreed:
            raise AccessDeniedError()
        return agreed
    if "consent" in prompts:
        return None
    if client.first_party:
        return scope
    if is_impersonable(client, pending.parameters["redirect_uri"]):
        return None
    return remembered_scope(connection, session.account.name, client.client_id, scope)


def _issue_code(
    env: Environment,
    connection: Connection,
    form: FormRequest,
    pending: PendingRequest,
    launch: Launch | None,
    patient: str | None,
) -> Progress:
    """Use the launch up and answer with a code."""
    agreed = form.authorization
    if agreed is None:
        raise AccessDeniedError()
    if launch is not None:
        launch = use_launch(connection, pending.parameters["launch"], pending.client_id, agreed.account.name)
        if launch is None:  # another window was faster
            raise InvalidRequestError("The launch was used already")
    form.authorization = Authorization(agreed.session, agreed.scope, told(launch, pending, patient, agreed.scope))
    server = env.server(connection)
    server_grant = server.get_authorization_grant(form)
    answer = server.create_authorization_response(form, grant_user=agreed.account, grant=server_grant)
    finish_request(connection, pending)
    return Progress(Step.REDIRECT, location=answer.location or "")
