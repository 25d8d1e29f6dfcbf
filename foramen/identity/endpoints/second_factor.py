"""`/auth/second-factor`: the code of an authenticator app, or a recovery code, after the password.

RFC 6238; NIST SP 800-63B §3.1.4
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

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
    partial_account,
    signed_in,
    throttled,
)
from foramen.identity.environment import Environment
from foramen.identity.pages import error_page, render
from foramen.identity.parameters import form_parameters, query_parameters
from foramen.identity.people.passkeys import rp_id
from foramen.identity.people.second_factor import enrolled, use_any_code
from foramen.identity.people.sessions import PASSWORD

WHAT = "second-factor"
_MAX_CODE_LENGTH = 64


async def second_factor_page(env: Environment, request: Request) -> Response:
    """Ask for a code."""
    return await _page(env, request, destination(query_parameters(request)))


async def second_factor(env: Environment, request: Request) -> Response:
    """Check the code and start the session."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    to, code = destination(form), form.get("code", "")[:_MAX_CODE_LENGTH]

    def work(connection: Connection) -> str | int | None:
        now = utc_now()
        account = partial_account(env, connection, request)
        if account is None:
            return ""
        wait = address_wait_s(env, connection, request, account.name, now)
        if wait:
            return wait
        factor = use_any_code(connection, env.data_keys, account.name, code, now)
        if factor is None:
            failed(env, connection, request, WHAT, account.name)
            return None
        return complete(env, connection, request, account, (PASSWORD, factor))

    answer = await env.database.run(work)
    env.audit.wake()
    if isinstance(answer, int):
        return throttled(env, request, answer)
    if answer is None:
        return await _page(env, request, to, failed=True)
    return signed_in(env, request, to, answer) if answer else redirect(to.page("login"))


async def _page(env: Environment, request: Request, to: Destination, *, failed: bool = False) -> Response:
    def work(connection: Connection) -> tuple[dict[str, Any] | None, bool, bool] | None:
        account = partial_account(env, connection, request)
        if account is None:
            return None
        have = enrolled(connection, account.name)
        return page_values(env, connection, request, to), bool(have.devices or have.codes_left), bool(have.passkeys)

    found = await env.database.run(work)
    if found is None:
        return redirect(to.page("login"))
    values, by_code, by_passkey = found
    if values is None:
        return error_page(env, request, 400, "expired")
    return render(
        env,
        request,
        "second_factor.html",
        status=403 if failed else 200,
        failed=failed,
        by_code=by_code,
        passkey_page=to.page("passkey") if by_passkey and rp_id(env.settings) else "",
        login_page=to.page("login"),
        **values,
    )
