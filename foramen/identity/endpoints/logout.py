"""`/auth/logout`: end the session and every token that lives with it.

https://openid.net/specs/openid-connect-rpinitiated-1_0.html
"""

from __future__ import annotations

from urllib.parse import urlencode

from joserfc import jwt
from joserfc.errors import JoseError
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.audit_outbox import record
from foramen.identity.cookies import SESSION, clear_cookie, read_cookie
from foramen.identity.cookies import SIGN_IN as PARTIAL
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session, form_is_ours
from foramen.identity.endpoints.federation_logout import outside_sign_out
from foramen.identity.environment import Environment
from foramen.identity.federation.outside_sessions import Held, forget, origin
from foramen.identity.oauth.clients import find_client
from foramen.identity.oauth.signing import ID_TOKEN_ALGORITHMS
from foramen.identity.opaque_tokens import digest
from foramen.identity.pages import error_page, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.people.partial_sign_in import end_partial
from foramen.identity.people.sessions import end_session
from foramen.identity.security_event import SIGN_OUT, SUCCESS, SecurityEvent


async def logout_page(env: Environment, request: Request) -> Response:
    """Ask first, unless an app proves with its id_token that it speaks for this session's person."""
    parameters = query_parameters(request)
    hint = _hint(env, parameters.get("id_token_hint", ""))

    def work(connection: Connection) -> tuple[bool, str | None]:
        session = current_session(env, connection, request)
        client = find_client(connection, hint[1]) if hint else None
        wanted = parameters.get("post_logout_redirect_uri", "")
        target = wanted if client is not None and wanted in client.redirect_uris else None
        return session is None or (hint is not None and hint[0] == session.account.name), target

    may_end, target = await env.database.run(work)
    if not may_end:
        return render(env, request, "logout.html", done=False)
    return await _end(env, request, target, parameters.get("state"))


async def logout(env: Environment, request: Request) -> Response:
    """End the session after the person confirmed."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    return await _end(env, request, None, None)


async def _end(env: Environment, request: Request, target: str | None, state: str | None) -> Response:
    cookie = read_cookie(env, request, SESSION)

    def work(connection: Connection) -> Held | None:
        held = origin(connection, cookie)
        forget(connection, cookie)
        end_partial(connection, read_cookie(env, request, PARTIAL))
        account = end_session(connection, digest(cookie)) if cookie else None
        if account is not None:
            event = SecurityEvent(SIGN_OUT, SUCCESS, account=account, address=client_address(request))
            record(connection, event)
        return held if account is not None else None

    held = await env.database.run(work)
    env.audit.wake()
    outside = await outside_sign_out(env, request, held, _with_state(target, state))
    if outside is not None:
        response = outside.answer(env, request, by_form=request.method == "POST")
    elif target is not None:
        response = redirect(_with_state(target, state) or "")
    else:
        response = render(env, request, "logout.html", done=True)
    clear_cookie(env, response, SESSION)
    if read_cookie(env, request, PARTIAL):
        clear_cookie(env, response, PARTIAL)
    return response


def _with_state(target: str | None, state: str | None) -> str | None:
    return f"{target}{'&' if '?' in target else '?'}{urlencode({'state': state})}" if target and state else target


def _hint(env: Environment, id_token: str) -> tuple[str, str] | None:
    """Return subject and audience of an id_token of ours; one that has run out is good enough as a hint."""
    if not id_token:
        return None
    try:
        token = jwt.decode(id_token, env.signer.key_set(), algorithms=ID_TOKEN_ALGORITHMS)
    except (JoseError, ValueError):
        return None
    claims = token.claims
    if token.header.get("typ") != "JWT" or claims.get("iss") != env.settings.issuer:
        return None
    return str(claims.get("sub", "")), str(claims.get("aud", ""))
