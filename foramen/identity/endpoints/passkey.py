"""`/auth/passkey` (sign in without a password), `/auth/enrol/passkey` (set one up) and the script both pages load.

The script calls `navigator.credentials` and sends the answer as a form; options travel in the page.
https://www.w3.org/TR/webauthn-3/
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.cookies import csrf_binding
from foramen.identity.database import utc_now
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import form_is_ours
from foramen.identity.endpoints.enrol import (
    SIGN_IN_AGAIN,
    Enrolment,
    after_enrolment,
    enrolled_now,
    enrolling,
    factor_name,
)
from foramen.identity.endpoints.sign_in_steps import (
    Destination,
    complete,
    destination,
    failed_unguessable,
    page_values,
    partial_account,
    signed_in,
)
from foramen.identity.environment import Environment
from foramen.identity.federation.linking import signs_in_outside_only
from foramen.identity.pages import error_page, render
from foramen.identity.parameters import form_parameters, query_parameters
from foramen.identity.people import passkeys
from foramen.identity.people.accounts import find_account
from foramen.identity.people.passkeys import PasskeyRefused
from foramen.identity.people.second_factor import code_succeeded
from foramen.identity.people.sessions import PASSKEY, PASSWORD

WHAT = "passkey"


async def script(_: Environment, __: Request) -> Response:
    """Serve the script."""
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(_script(), media_type="text/javascript", headers=headers)


@cache
def _script() -> bytes:
    return resources.files("foramen.identity").joinpath("static", "passkey.js").read_bytes()


async def passkey_page(env: Environment, request: Request) -> Response:
    """Ask for a passkey: any discoverable one, or one of the person whose password was right."""
    return await _sign_in_page(env, request, destination(query_parameters(request)))


async def passkey(env: Environment, request: Request) -> Response:
    """Check the passkey's answer and start the session.

    No address waits for it and no failure counts against one: a signature is not guessed.
    """
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    to, browser = destination(form), csrf_binding(env, request)[0]

    def work(connection: Connection) -> str | None:
        now = utc_now()
        try:
            name = passkeys.sign_in(connection, env.settings, browser, form.get("credential", ""), now)
            account = find_account(connection, name)
        except PasskeyRefused:
            account = None  # no exception leaves: the challenge stays used and the failure counted
        if account is None:
            failed_unguessable(connection, request, WHAT)
            return None
        half = partial_account(env, connection, request)
        by_password = half is not None and half.name == account.name
        if not by_password and signs_in_outside_only(connection, account.name):
            failed_unguessable(connection, request, WHAT, account.name)
            return None
        code_succeeded(connection, account.name)
        return complete(env, connection, request, account, (PASSWORD, PASSKEY) if by_password else (PASSKEY,))

    answer = await env.database.run(work)
    env.audit.wake()
    if answer is None:
        return await _sign_in_page(env, request, to, refused=True)
    return signed_in(env, request, to, answer)


async def _sign_in_page(env: Environment, request: Request, to: Destination, *, refused: bool = False) -> Response:
    binding = csrf_binding(env, request)

    def work(connection: Connection) -> tuple[str | None, dict[str, Any] | None]:
        half = partial_account(env, connection, request)
        name = half.name if half else None
        options = passkeys.sign_in_options(connection, env.settings, name, binding[0], utc_now())
        return options, page_values(env, connection, request, to)

    options, values = await env.database.run(work)
    if values is None:
        return error_page(env, request, 400, "expired")
    if options is None:
        return error_page(env, request, 404, "no_passkeys")
    return render(
        env,
        request,
        "passkey.html",
        status=403 if refused else 200,
        script=True,
        binding=binding,
        failed=refused,
        options=options,
        login_page=to.page("login"),
        **values,
    )


async def enrol_passkey_page(env: Environment, request: Request) -> Response:
    """Offer to make a passkey."""
    return await _enrol_page(env, request, destination(query_parameters(request)))


async def enrol_passkey(env: Environment, request: Request) -> Response:
    """Check the new passkey and keep it."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    to, browser, name = destination(form), csrf_binding(env, request)[0], factor_name(env, request, form, "passkey")

    def work(connection: Connection) -> Enrolment | bool:
        now = utc_now()
        who = enrolling(env, connection, request, now)
        if who is None:
            return False
        credential = form.get("credential", "")
        try:
            passkeys.register(connection, env.settings, who.account.name, browser, credential, name, now)
        except PasskeyRefused:
            failed_unguessable(connection, request, WHAT, who.account.name)
            return True
        return enrolled_now(env, connection, request, who, WHAT, PASSKEY)

    done = await env.database.run(work)
    env.audit.wake()
    if isinstance(done, Enrolment):
        return after_enrolment(env, request, to, done)
    if not done:
        return redirect(to.page("login") if to.request_id else SIGN_IN_AGAIN)
    return await _enrol_page(env, request, to, refused=True)


async def _enrol_page(env: Environment, request: Request, to: Destination, *, refused: bool = False) -> Response:
    binding = csrf_binding(env, request)

    def work(connection: Connection) -> tuple[bool, str | None, dict[str, Any] | None]:
        now = utc_now()
        who = enrolling(env, connection, request, now)
        if who is None:
            return False, None, {}
        options = passkeys.registration_options(connection, env.settings, who.account.name, binding[0], now)
        return True, options, page_values(env, connection, request, to)

    allowed, options, values = await env.database.run(work)
    if not allowed:
        return redirect(to.page("login") if to.request_id else SIGN_IN_AGAIN)
    if values is None:
        return error_page(env, request, 400, "expired")
    if options is None:
        return error_page(env, request, 404, "no_passkeys")
    return render(
        env,
        request,
        "enrol_passkey.html",
        status=403 if refused else 200,
        script=True,
        binding=binding,
        failed=refused,
        options=options,
        back=to.page("enrol"),
        **values,
    )
