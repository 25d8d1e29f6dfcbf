"""`/auth/set-password`: set the first or a forgotten password with a link that an administrator handed over.

OWASP Forgot Password Cheat Sheet: the link is good once, tells nothing about the account when it is not good, and signs
nobody in. The secret is in the URL of this page only; no page is linked from it and no referrer leaves it.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import form_is_ours
from foramen.identity.endpoints.sign_in_steps import failed_unguessable
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.pages import error_page, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.people.accounts import Account
from foramen.identity.people.password_links import account_of_link, use_link
from foramen.identity.people.password_policy import MIN_PASSWORD_LENGTH, password_fault
from foramen.identity.people.passwords import hash_password

PASSWORD_LINK = "password-link"  # noqa: S105  a word of the audit
_LONGEST_TOKEN = 64


async def set_password_page(env: Environment, request: Request) -> Response:
    """Show the form; a link that is not good is answered like one that never was."""
    token = query_parameters(request).get("token", "")[:_LONGEST_TOKEN]
    account = await _account(env, request, token)
    return account if isinstance(account, Response) else _page(env, request, token, account)


async def set_password(env: Environment, request: Request) -> Response:
    """Set the password and go to the sign-in page."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    token, new = form.get("token", "")[:_LONGEST_TOKEN], form.get("new_password", "")
    account = await _account(env, request, token)
    if isinstance(account, Response):
        return account
    if new != form.get("new_password_again", ""):
        return _page(env, request, token, account, "problem_differ")
    async with env.password_checks:
        fault = await asyncio.to_thread(password_fault, new, (account.name, account.institution))
        if fault:
            return _page(env, request, token, account, f"problem_{fault}")
        password_hash = await asyncio.to_thread(hash_password, new)
    address = client_address(request)
    done = await env.database.run(lambda connection: use_link(connection, token, password_hash, address))
    env.audit.wake()
    return redirect(f"{MOUNT}/login?then=account") if done else error_page(env, request, 404, "password_link")


async def _account(env: Environment, request: Request, token: str) -> Account | Response:
    """Return whose link it is. 256 random bits are not guessed: a wrong link counts against nobody, nobody waits."""

    def look(connection: Connection) -> Account | None:
        found = account_of_link(connection, token)
        if found is None:
            failed_unguessable(connection, request, PASSWORD_LINK)
        return found

    found = await env.database.run(look)
    env.audit.wake()
    return error_page(env, request, 404, "password_link") if found is None else found


def _page(env: Environment, request: Request, token: str, account: Account, problem: str = "") -> Response:
    return render(
        env,
        request,
        "set_password.html",
        status=400 if problem else 200,
        token=token,
        account=account,
        problem=problem,
        min_length=MIN_PASSWORD_LENGTH,
    )
