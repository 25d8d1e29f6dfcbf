"""`/auth/enrol`: set up an authenticator app — before anything else where the role needs it, or from the account page.

RFC 6238; NIST SP 800-63B §4.1.2 (binding a further authenticator needs a recent sign-in)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.audit_outbox import record
from foramen.identity.cookies import csrf_binding
from foramen.identity.database import utc_now
from foramen.identity.done_notice import vouch
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session, form_is_ours
from foramen.identity.endpoints.second_factor import WHAT
from foramen.identity.endpoints.sign_in_steps import (
    ACCOUNT_PAGE,
    Destination,
    complete,
    destination,
    page_values,
    partial_account,
    renewed,
    with_session,
)
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.pages import error_page, page_language, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.people import totp
from foramen.identity.people.accounts import Account
from foramen.identity.people.partial_sign_in import end_partials
from foramen.identity.people.passkeys import rp_id
from foramen.identity.people.recovery_codes import codes_left, replace_codes
from foramen.identity.people.second_factor import enrolled
from foramen.identity.people.sessions import PASSWORD, TOTP, Session, add_factor, end_other_sessions
from foramen.identity.rights.permissions import lock_account
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.identity.text import WORDS

RECENT = timedelta(minutes=15)
_MAX_NAME_LENGTH = 60
SIGN_IN_AGAIN = f"{MOUNT}/login?then=account"


@dataclass(frozen=True, slots=True)
class Enrolling:
    """Who sets a factor up: in the middle of a sign-in (no session yet), or signed in not long ago."""

    account: Account
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """How it ended: new recovery codes with the first factor, and the session, which has a new id.

    `signing_in`: it was part of a sign-in, that goes on where it leads.
    """

    codes: tuple[str, ...] = ()
    cookie: str = ""
    signing_in: bool = False


def enrolling(env: Environment, connection: Connection, request: Request, now: datetime) -> Enrolling | None:
    """Return who may set up a factor now; None leads to signing in (again).

    A password alone may add the first factor, never a further one, in a sign-in or in a session. The account is locked,
    so that of two that add a first factor at once one is the first.
    """
    account = partial_account(env, connection, request)
    if account is not None:
        lock_account(connection, account.name)
        if enrolled(connection, account.name).number == 0:
            return Enrolling(account)
    session = current_session(env, connection, request)
    if session is None or not may_change_factors(connection, session, now):
        return None
    return Enrolling(session.account, session)


def may_change_factors(connection: Connection, session: Session, now: datetime) -> bool:
    """Whether a session may change how its person signs in: a recent sign-in, with two factors where there are two.

    Locks the account, so that the answer holds until the transaction ends.
    """
    lock_account(connection, session.account.name)
    one_is_enough = enrolled(connection, session.account.name).number == 0
    return is_recent(session, now) and (session.has_second_factor or one_is_enough)


def is_recent(session: Session, now: datetime) -> bool:
    """Whether the person proved who they are not long ago: a stolen cookie must not change how one signs in."""
    return (session.authenticated_at or session.signed_in_at) > now - RECENT


def factor_name(env: Environment, request: Request, form: dict[str, str], kind: str) -> str:
    """Return the name a person gave a factor, or its kind in their language."""
    return form.get("name", "").strip()[:_MAX_NAME_LENGTH] or WORDS[page_language(env, request)][kind]


def enrolled_now(
    env: Environment, connection: Connection, request: Request, who: Enrolling, what: str, factor: str
) -> Enrolment:
    """Finish an enrolment: audit, recovery codes, and the session; with the first factor all other sessions end.

    They were signed in with less than the account asks for now.
    """
    event = SecurityEvent(
        what=what, outcome=SUCCESS, account=who.account.name, address=client_address(request), reason=f"added {factor}"
    )
    record(connection, event)
    name = who.account.name
    codes = replace_codes(connection, name) if codes_left(connection, name) == 0 else ()
    if enrolled(connection, name).number == 1:
        end_partials(connection, name)
        end_other_sessions(connection, name, who.session.session_digest if who.session else "")
    if who.session is not None:
        add_factor(connection, who.session.session_digest, factor, utc_now(), proves_person=False)
        return Enrolment(codes, renewed(env, connection, request, who.session))
    return Enrolment(codes, complete(env, connection, request, who.account, (PASSWORD, factor)), signing_in=True)


def after_enrolment(env: Environment, request: Request, to: Destination, done: Enrolment) -> Response:
    """Show the recovery codes once, or go on."""
    location = to.location if done.signing_in else f"{ACCOUNT_PAGE}?done=factor-added"
    if done.codes:
        response: Response = render(env, request, "recovery_codes.html", codes=done.codes, location=location)
    else:
        response = redirect(location)
    return with_session(env, request, vouch(env, response, location), done.cookie)


async def enrol_page(env: Environment, request: Request) -> Response:
    """Show a new secret as QR code and as text."""
    return await _page(env, request, destination(query_parameters(request)))


async def enrol(env: Environment, request: Request) -> Response:
    """Keep the secret if the code that was typed is one of its codes."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    to, browser = destination(form), csrf_binding(env, request)[0]
    name = factor_name(env, request, form, "authenticator_app")

    def work(connection: Connection) -> Enrolment | str | None:
        now = utc_now()
        who = enrolling(env, connection, request, now)
        if who is None:
            return None
        account = who.account.name
        secret = totp.opened_enrolment(env.data_keys, form.get("sealed", ""), account, browser, now)
        if secret is None:
            return ""
        if not totp.enrol(connection, env.data_keys, account, secret, form.get("code", ""), name, now):
            return secret
        return enrolled_now(env, connection, request, who, WHAT, TOTP)

    done = await env.database.run(work)
    env.audit.wake()
    if isinstance(done, Enrolment):
        return after_enrolment(env, request, to, done)
    if done is None:
        return redirect(to.page("login") if to.request_id else SIGN_IN_AGAIN)
    return await _page(env, request, to, failed=True, secret=done)


async def _page(
    env: Environment, request: Request, to: Destination, *, failed: bool = False, secret: str = ""
) -> Response:
    binding = csrf_binding(env, request)

    def work(connection: Connection) -> tuple[Enrolling | None, dict[str, Any] | None]:
        return enrolling(env, connection, request, utc_now()), page_values(env, connection, request, to)

    who, values = await env.database.run(work)
    if who is None:
        return redirect(to.page("login") if to.request_id else SIGN_IN_AGAIN)
    if values is None:
        return error_page(env, request, 400, "expired")
    secret, account = secret or totp.new_secret(), who.account.name
    return render(
        env,
        request,
        "enrol.html",
        status=403 if failed else 200,
        binding=binding,
        failed=failed,
        forced=who.session is None,
        secret=" ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
        qr=totp.qr_svg(totp.provisioning_uri(secret, account, "Foramen")),
        sealed=totp.sealed_enrolment(env.data_keys, secret, account, binding[0], utc_now()),
        passkey_page=to.page("enrol/passkey") if rp_id(env.settings) else "",
        account=account,
        **values,
    )
