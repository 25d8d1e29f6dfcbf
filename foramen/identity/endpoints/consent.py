"""`/auth/consent`: for apps that are not ours, what they ask for in plain words, to allow, narrow or deny.

RFC 6749 §10.2, RFC 9700 §4.16 (clickjacking)
"""

from __future__ import annotations

from urllib.parse import urlsplit

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.audit_outbox import record
from foramen.identity.endpoints.authorize import advance, to_response
from foramen.identity.endpoints.current_session import current_session, form_is_ours
from foramen.identity.endpoints.record_reading import named_patient
from foramen.identity.environment import Environment
from foramen.identity.oauth.authorization_flow import Progress, Step, proceed
from foramen.identity.oauth.authorization_requests import PendingRequest, find_request, settle_consent
from foramen.identity.oauth.consent_choices import CONTEXT, GROUPS, READ, WRITE, Choice, choices, chosen
from foramen.identity.oauth.consents import remember_consent
from foramen.identity.oauth.scopes import resource_scopes
from foramen.identity.pages import app_name, error_page, page_language, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.people.sessions import Session
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.identity.text import explain_scope

_MAX_FIELDS = 256
"""The form has a field for each scope that reads and each that writes."""


async def consent_page(env: Environment, request: Request) -> Response:
    """Show what the app asks for."""
    request_id = query_parameters(request).get("request", "")

    def work(connection: Connection) -> tuple[Progress, PendingRequest | None, Session | None]:
        progress = advance(env, connection, request, request_id)
        return progress, find_request(connection, request_id), current_session(env, connection, request)

    progress, pending, session = await env.database.run(work)
    if progress.step is not Step.CONSENT or pending is None or session is None:
        return to_response(env, request, progress)
    redirect_uri, ui_locales = pending.parameters["redirect_uri"], pending.parameters.get("ui_locales", "")
    language = page_language(env, request, ui_locales)
    lines = choices(progress.scope)
    scopes = resource_scopes(progress.scope)
    return render(
        env,
        request,
        "consent.html",
        redirect_uri=redirect_uri,
        ui_locales=ui_locales,
        app=app_name(progress.client, language),
        first_party=progress.client is not None and progress.client.first_party,
        groups=_grouped(lines, language),
        context=[explain_scope(line.scope, language) for line in lines if line.group == CONTEXT],
        writes=any(line.group == WRITE for line in lines) and any(line.group == READ for line in lines),
        patient=await named_patient(env, session.account, progress.patient),
        every_patient=any(scope.context == "user" for scope in scopes),
        account=session.account.name,
        return_to=urlsplit(redirect_uri).netloc or redirect_uri,
        request_id=request_id,
    )


def _grouped(lines: list[Choice], language: str) -> list[tuple[str, list[tuple[Choice, str]]]]:
    """Put the lines, each with its words, into the page's groups; a group without lines is left out."""
    found = [
        (group, [(line, explain_scope(line.scope, language)) for line in lines if line.group == group])
        for group in GROUPS
    ]
    return [(group, members) for group, members in found if members]


async def consent(env: Environment, request: Request) -> Response:
    """Take the decision: what is left checked is granted and remembered; nothing left means no."""
    form = await form_parameters(request, _MAX_FIELDS)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    request_id, decision = form.get("request", ""), form.get("decision")
    address = client_address(request)

    def work(connection: Connection) -> Progress:
        progress = advance(env, connection, request, request_id)
        pending = find_request(connection, request_id)
        session = current_session(env, connection, request, lock=True)
        if progress.step is not Step.CONSENT or pending is None or session is None:
            return progress
        agreed = chosen(progress.scope, form, read_only=decision == "read-only")
        if decision not in ("allow", "read-only") or not agreed:
            return proceed(env, connection, request_id, pending, session, address, denied=True)
        _agree(connection, session, pending, progress, agreed, address)
        settled = find_request(connection, request_id)
        if settled is None:
            return progress
        return proceed(env, connection, request_id, settled, session, address)

    return to_response(env, request, await env.database.run(work))


def _agree(
    connection: Connection,
    session: Session,
    pending: PendingRequest,
    progress: Progress,
    agreed: str,
    address: str | None,
) -> None:
    """Note what was agreed, remember it, and leave an audit event."""
    settle_consent(connection, pending, agreed.split())
    account = session.account
    remember_consent(connection, account.name, pending.client_id, progress.scope, agreed)
    event = SecurityEvent(
        what="grant",
        outcome=SUCCESS,
        account=account.name,
        client_id=pending.client_id,
        fhir_user=account.fhir_user,
        patient=progress.patient,
        address=address,
    )
    record(connection, event)
