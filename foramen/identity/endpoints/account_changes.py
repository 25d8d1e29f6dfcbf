"""The forms of the account page: password, names and removal of factors, recovery codes, sessions, apps.

Every change leaves an audit event in its transaction; changes of factors need a recent sign-in, with two factors where
the account has two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.audit_outbox import record
from foramen.identity.cookies import DEVICE, read_cookie
from foramen.identity.database import utc_now
from foramen.identity.done_notice import vouch
from foramen.identity.endpoints.account import page
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session, form_is_ours
from foramen.identity.endpoints.enrol import SIGN_IN_AGAIN, factor_name, may_change_factors
from foramen.identity.endpoints.second_factor import WHAT
from foramen.identity.endpoints.sign_in_steps import (
    ACCOUNT_PAGE,
    address_wait_s,
    failed,
    renewed,
    throttled,
    with_session,
)
from foramen.identity.environment import Environment
from foramen.identity.oauth.consents import withdraw_consent
from foramen.identity.pages import error_page, render
from foramen.identity.parameters import client_address, form_parameters
from foramen.identity.people.accounts import SignInAttempt, begin_sign_in, set_password_hash, sign_in_succeeded
from foramen.identity.people.password_policy import password_fault
from foramen.identity.people.passwords import hash_password, password_matches
from foramen.identity.people.recovery_codes import replace_codes
from foramen.identity.people.second_factor import enrolled, remove_factor, rename_factor, second_factor_roles
from foramen.identity.people.sessions import Session, end_other_sessions, end_own_session
from foramen.identity.security_event import SUCCESS, SecurityEvent

PASSWORD_CHANGE, SESSION_END, WITHDRAW = "password-change", "session", "withdraw"
Change = Callable[[Connection, Session, dict[str, str]], str]
_AGAIN = "sign in again"


def _audit(connection: Connection, request: Request, session: Session, what: str, reason: str = "") -> None:
    event = SecurityEvent(
        what=what,
        outcome=SUCCESS,
        account=session.account.name,
        fhir_user=session.account.fhir_user,
        address=client_address(request),
        reason=reason or None,
    )
    record(connection, event)


async def _change(env: Environment, request: Request, change: Change, *, of_factors: bool) -> Response:
    """Do one change of the signed-in person and come back to the page; `change` returns what was done or a problem.

    A change of factors needs what setting one up needs (`may_change_factors`).
    """
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")

    def work(connection: Connection) -> str:
        session = current_session(env, connection, request)
        if session is None or (of_factors and not may_change_factors(connection, session, utc_now())):
            return _AGAIN
        return change(connection, session, form)

    said = await env.database.run(work)
    env.audit.wake()
    if said == _AGAIN:
        return redirect(SIGN_IN_AGAIN)
    if said.startswith("problem_"):
        return await page(env, request, status=400, problem=said)
    return vouch(env, redirect(f"{ACCOUNT_PAGE}?done={said}"))


async def factor(env: Environment, request: Request) -> Response:
    """Rename or remove a second factor; the last one stays where the role needs one."""

    def change(connection: Connection, session: Session, form: dict[str, str]) -> str:
        name, kind, chosen = session.account.name, form.get("kind", ""), form.get("factor", "")
        what = "passkey" if kind == "passkey" else WHAT
        if form.get("action") == "rename":
            new_name = factor_name(env, request, form, "passkey" if kind == "passkey" else "authenticator_app")
            if not rename_factor(connection, name, kind, chosen, new_name):
                return "problem_gone"
            _audit(connection, request, session, what, "renamed")
            return "factor-renamed"
        if session.account.role in second_factor_roles(env.settings) and enrolled(connection, name).number <= 1:
            return "problem_last_factor"
        if not remove_factor(connection, name, kind, chosen):
            return "problem_gone"
        _audit(connection, request, session, what, "removed")
        return "factor-removed"

    return await _change(env, request, change, of_factors=True)


async def recovery_codes(env: Environment, request: Request) -> Response:
    """Make new recovery codes and show them once."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")

    def work(connection: Connection) -> tuple[str, ...]:
        session = current_session(env, connection, request)
        if session is None or not may_change_factors(connection, session, utc_now()):
            return ()
        if enrolled(connection, session.account.name).number == 0:
            return ()
        _audit(connection, request, session, WHAT, "new recovery codes")
        return replace_codes(connection, session.account.name)

    codes = await env.database.run(work)
    env.audit.wake()
    if not codes:
        return redirect(SIGN_IN_AGAIN)
    return render(env, request, "recovery_codes.html", codes=codes, location=ACCOUNT_PAGE)


async def sessions(env: Environment, request: Request) -> Response:
    """End one session of the person, or all but this one."""

    def change(connection: Connection, session: Session, form: dict[str, str]) -> str:
        name, chosen = session.account.name, form.get("session", "")
        if chosen:
            if chosen == session.session_digest or not end_own_session(connection, name, chosen):
                return "problem_gone"
            _audit(connection, request, session, SESSION_END, "ended")
            return "session-ended"
        ended = end_other_sessions(connection, name, session.session_digest)
        _audit(connection, request, session, SESSION_END, f"ended {ended} others")
        return "sessions-ended"

    return await _change(env, request, change, of_factors=False)


async def withdraw(env: Environment, request: Request) -> Response:
    """Withdraw what an app was given: its tokens end and it has to ask again."""

    def change(connection: Connection, session: Session, form: dict[str, str]) -> str:
        name, client_id = session.account.name, form.get("client", "")
        if not withdraw_consent(connection, name, client_id):
            return "problem_gone"
        event = SecurityEvent(
            WITHDRAW,
            SUCCESS,
            account=name,
            client_id=client_id,
            address=client_address(request),
            reason="by the person",
        )
        record(connection, event)
        return "app-withdrawn"

    return await _change(env, request, change, of_factors=False)


async def change_password(env: Environment, request: Request) -> Response:
    """Change the password: the old one is needed; other sessions and all other tokens end."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    async with env.password_checks:
        begun = await env.database.run(lambda connection: _begin_password(env, connection, request))
        if begun is None:
            return redirect(SIGN_IN_AGAIN)
        if isinstance(begun, int):
            return throttled(env, request, begun)
        session, attempt = begun
        matches = await asyncio.to_thread(password_matches, attempt.password_hash, form.get("old_password", ""))
        problem = await asyncio.to_thread(_problem, session, form) if matches else "problem_old_password"
        new_hash = await asyncio.to_thread(hash_password, form.get("new_password", "")) if not problem else ""

        def settle(connection: Connection) -> str:
            name = session.account.name
            if not matches or sign_in_succeeded(connection, name, attempt.device, attempt.password_hash) is None:
                failed(env, connection, request, PASSWORD_CHANGE, name)
                return ""
            return "" if problem else _replace(env, connection, request, session, new_hash)

        cookie = await env.database.run(settle)
    env.audit.wake()
    if not cookie:
        return await page(env, request, status=400 if matches else 403, problem=problem)
    return with_session(env, request, vouch(env, redirect(f"{ACCOUNT_PAGE}?done=password-changed")), cookie)


def _begin_password(
    env: Environment, connection: Connection, request: Request
) -> tuple[Session, SignInAttempt] | int | None:
    """Count an attempt at the old password; a wait, or None without a session."""
    session, now = current_session(env, connection, request), utc_now()
    if session is None:
        return None
    name = session.account.name
    wait = address_wait_s(env, connection, request, name, now)
    return wait or (session, begin_sign_in(connection, name, read_cookie(env, request, DEVICE), now))


def _problem(session: Session, form: dict[str, str]) -> str:
    """Return what is wrong with the new password, as a word of the page; empty when nothing is."""
    new = form.get("new_password", "")
    if new != form.get("new_password_again", ""):
        return "problem_differ"
    fault = password_fault(new, (session.account.name, session.account.institution))
    return f"problem_{fault}" if fault else ""


def _replace(env: Environment, connection: Connection, request: Request, session: Session, new_hash: str) -> str:
    """Set the new password and give this session a new id; it is no more recent and no stronger than before."""
    set_password_hash(connection, session.account.name, new_hash, session.session_digest)
    _audit(connection, request, session, PASSWORD_CHANGE)
    return renewed(env, connection, request, session)
