"""`/auth/consent`: for apps that are not ours, what they ask for in plain words, to allow or deny.

RFC 6749 §10.2, RFC 9700 §4.16 (clickjacking)
"""

from __future__ import annotations

from urllib.parse import urlsplit

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.authorization_flow import Progress, Step, proceed
from foramen.identity.authorization_requests import PendingRequest, find_request, settle_consent
from foramen.identity.endpoints.authorize import advance, to_response
from foramen.identity.endpoints.current_session import current_session, form_is_ours
from foramen.identity.environment import Environment
from foramen.identity.pages import app_name, error_page, page_language, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.sessions import Session
from foramen.identity.text import explain_scope
from foramen.kernel.access_context import parse_scope


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
    return render(
        env,
        request,
        "consent.html",
        redirect_uri=redirect_uri,
        ui_locales=ui_locales,
        app=app_name(progress.client, language),
        scopes=[(scope, explain_scope(scope, language)) for scope in _data_first(progress.scope)],
        account=session.account.name,
        return_to=urlsplit(redirect_uri).netloc or redirect_uri,
        request_id=request_id,
    )


def _data_first(scope: str) -> list[str]:
    """Put what reaches the record before what concerns the sign-in."""
    return sorted(scope.split(), key=lambda part: parse_scope(part) is None)


async def consent(env: Environment, request: Request) -> Response:
    """Take the decision."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    request_id, allowed = form.get("request", ""), form.get("decision") == "allow"

    def work(connection: Connection) -> Progress:
        progress = advance(env, connection, request, request_id, denied=not allowed)
        pending = find_request(connection, request_id)
        session = current_session(env, connection, request)
        if progress.step is not Step.CONSENT or pending is None:
            return progress
        settle_consent(connection, pending, progress.scope.split())
        settled = find_request(connection, request_id)
        if settled is None:
            return progress
        return proceed(env, connection, request_id, settled, session, client_address(request))

    return to_response(env, request, await env.database.run(work))
