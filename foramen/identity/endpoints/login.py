"""`/auth/login`: the sign-in page. One form, no script; the same answer and the same work for every reason of failure.

OWASP Authentication and Session Management Cheat Sheets
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.cookies import DEVICE, read_cookie, set_cookie
from foramen.identity.cookies import SIGN_IN as PARTIAL
from foramen.identity.database import utc_now
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import form_is_ours
from foramen.identity.endpoints.sign_in_steps import (
    Destination,
    address_wait_s,
    complete,
    destination,
    failed,
    page_values,
    signed_in,
    throttled,
)
from foramen.identity.environment import Environment
from foramen.identity.federation.choices import sign_in_choices
from foramen.identity.federation.linking import signs_in_outside_only
from foramen.identity.pages import error_page, page_language, render
from foramen.identity.parameters import form_parameters, query_parameters
from foramen.identity.people.accounts import SignInAttempt, begin_sign_in, sign_in_succeeded
from foramen.identity.people.partial_sign_in import LIFETIME, begin_partial, end_partial
from foramen.identity.people.passkeys import rp_id
from foramen.identity.people.passwords import password_matches
from foramen.identity.people.second_factor import enrolled, second_factor_roles
from foramen.identity.people.sessions import PASSWORD
from foramen.identity.security_event import SIGN_IN


@dataclass(frozen=True, slots=True)
class _Settled:
    """How the password step ended: one of a session, a sign-in that needs its second factor, a wait; else failed."""

    session: str = ""
    partial: str = ""
    next_page: str = ""
    wait_s: int = 0


async def login_page(env: Environment, request: Request) -> Response:
    """Show the form."""
    return await _page(env, request, destination(query_parameters(request)))


async def login(env: Environment, request: Request) -> Response:
    """Check name and password; start a session, or ask for the second factor."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    to, name, password = destination(form), form.get("username", "")[:64], form.get("password", "")

    def wait(connection: Connection) -> int:
        return address_wait_s(env, connection, request, name, utc_now())

    def begin(connection: Connection) -> SignInAttempt | int:
        return wait(connection) or begin_sign_in(connection, name, read_cookie(env, request, DEVICE), utc_now())

    waiting = await env.database.run(wait)
    if waiting:
        return throttled(env, request, waiting)
    # Asked again with each turn: of many sent at once, those past the budget are neither counted nor looked at.
    async with env.password_checks:
        attempt = await env.database.run(begin)
        if isinstance(attempt, int):
            return throttled(env, request, attempt)
        matches = await asyncio.to_thread(password_matches, attempt.password_hash, password)
        settled = await env.database.run(lambda connection: _settle(env, connection, request, name, attempt, matches))
    env.audit.wake()
    if settled.wait_s:
        return throttled(env, request, settled.wait_s)
    if settled.session:
        return signed_in(env, request, to, settled.session)
    if settled.partial:
        response = redirect(to.page(settled.next_page))
        set_cookie(env, response, PARTIAL, settled.partial, int(LIFETIME.total_seconds()))
        return response
    return await _page(env, request, to, failed=True)


def _settle(
    env: Environment, connection: Connection, request: Request, name: str, attempt: SignInAttempt, matches: bool
) -> _Settled:
    """Decide what comes next, or note the failure.

    The budget is looked at again: of many attempts sent at once, those past it learn nothing about their password.
    No password is right for an account that a provider manages; each name is asked about, so that none stands out.
    """
    now = utc_now()
    wait = address_wait_s(env, connection, request, name, now)
    if wait:
        return _Settled(wait_s=wait)
    outside_only = signs_in_outside_only(connection, name)
    account = None
    if matches and not outside_only:
        account = sign_in_succeeded(connection, name, attempt.device, attempt.password_hash)
    if account is None:
        failed(env, connection, request, SIGN_IN, name if attempt.known else None)
        return _Settled()
    have = enrolled(connection, account.name)
    if not have.number and account.role not in second_factor_roles(env.settings):
        return _Settled(session=complete(env, connection, request, account, (PASSWORD,)))
    end_partial(connection, read_cookie(env, request, PARTIAL))
    return _Settled(
        partial=begin_partial(connection, account.name, now), next_page="second-factor" if have.number else "enrol"
    )


async def _page(env: Environment, request: Request, to: Destination, *, failed: bool = False) -> Response:
    def work(connection: Connection) -> tuple[dict[str, Any] | None, list[dict[str, str]]]:
        values = page_values(env, connection, request, to)
        language = page_language(env, request, values["ui_locales"]) if values else ""
        return values, sign_in_choices(connection, to.page, language)

    values, outside = await env.database.run(work)
    if values is None:
        return error_page(env, request, 400, "expired")
    return render(
        env,
        request,
        "login.html",
        status=403 if failed else 200,
        failed=failed,
        passkey_page=to.page("passkey") if rp_id(env.settings) else "",
        outside=outside,
        **values,
    )
