"""`/auth/login`: the sign-in page. One form, no script; the same answer for every reason of failure.

OWASP Authentication and Session Management Cheat Sheets
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.accounts import Account, SignInAttempt, begin_sign_in, sign_in_succeeded
from foramen.identity.audit_outbox import record
from foramen.identity.authorization_requests import find_request
from foramen.identity.clients import Client, find_client
from foramen.identity.cookies import CSRF, SESSION, clear_cookie, read_cookie, set_cookie
from foramen.identity.database import utc_now
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import form_is_ours
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.pages import app_name, error_page, page_language, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.passwords import password_matches
from foramen.identity.security_event import FAILED, SIGN_IN, SUCCESS, SecurityEvent
from foramen.identity.sessions import start_session


async def login_page(env: Environment, request: Request) -> Response:
    """Show the form."""
    return await _page(env, request, query_parameters(request).get("request", ""))


async def login(env: Environment, request: Request) -> Response:
    """Check name and password, and start a session."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    request_id = form.get("request", "")
    name, password = form.get("username", "")[:64], form.get("password", "")
    attempt = await env.database.run(lambda connection: begin_sign_in(connection, name, utc_now()))
    async with env.password_checks:
        matches = await asyncio.to_thread(password_matches, attempt.password_hash, password)
    cookie = await env.database.run(lambda connection: _settle(env, connection, request, name, attempt, matches))
    env.audit.wake()
    if cookie is None:
        return await _page(env, request, request_id, failed=True)
    response = redirect(f"{MOUNT}/continue?{urlencode({'request': request_id})}" if request_id else "/")
    set_cookie(env, response, SESSION, cookie)
    clear_cookie(env, response, CSRF)
    return response


def _settle(
    env: Environment, connection: Connection, request: Request, name: str, attempt: SignInAttempt, matches: bool
) -> str | None:
    """Start the session, or note the failure; returns the session cookie."""
    account: Account | None = sign_in_succeeded(connection, name) if matches else None
    event = SecurityEvent(
        what=SIGN_IN,
        outcome=SUCCESS if account else FAILED,
        account=name if attempt.known else None,
        fhir_user=account.fhir_user if account else None,
        address=client_address(request),
    )
    record(connection, event)
    if account is None:
        return None
    return start_session(connection, account.name, read_cookie(env, request, SESSION), utc_now())


async def _page(env: Environment, request: Request, request_id: str, *, failed: bool = False) -> Response:
    def work(connection: Connection) -> tuple[Client | None, dict[str, str]]:
        pending = find_request(connection, request_id) if request_id else None
        return (find_client(connection, pending.client_id), pending.parameters) if pending else (None, {})

    client, parameters = await env.database.run(work)
    if request_id and client is None:
        return error_page(env, request, 400, "expired")
    ui_locales = parameters.get("ui_locales", "")
    return render(
        env,
        request,
        "login.html",
        status=403 if failed else 200,
        redirect_uri=parameters.get("redirect_uri"),
        ui_locales=ui_locales,
        app=app_name(client, page_language(env, request, ui_locales)) if client else "",
        request_id=request_id,
        failed=failed,
    )
