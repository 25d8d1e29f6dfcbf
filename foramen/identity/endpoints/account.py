"""`/auth/account`: the person's own page — password, second factors, sessions, apps, language.

NIST SP 800-63B §4 (authenticator lifecycle); OWASP Session Management Cheat Sheet (users see and end their sessions)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity import tables
from foramen.identity.database import utc_now
from foramen.identity.done_notice import done_here
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.endpoints.enrol import SIGN_IN_AGAIN
from foramen.identity.environment import Environment
from foramen.identity.federation.providers import list_providers
from foramen.identity.oauth.clients import find_client
from foramen.identity.oauth.consents import consents_of
from foramen.identity.pages import app_name, page_language, render
from foramen.identity.people.browser_name import browser_name
from foramen.identity.people.passkeys import rp_id
from foramen.identity.people.password_policy import MIN_PASSWORD_LENGTH
from foramen.identity.people.second_factor import Enrolled, enrolled, second_factor_roles
from foramen.identity.people.sessions import ListedSession, Session, list_sessions
from foramen.identity.rights.break_glass import may_break_glass
from foramen.identity.text import explain_scope

DONE = (
    "password-changed",
    "factor-added",
    "factor-renamed",
    "factor-removed",
    "session-ended",
    "sessions-ended",
    "app-withdrawn",
)


@dataclass(frozen=True, slots=True)
class AppAccess:
    """An app that the person gave access to; `may` says in words to what."""

    client_id: str
    name: str
    since: datetime | None
    offline: bool
    may: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    session: Session
    enrolled: Enrolled
    sessions: list[ListedSession]
    apps: list[AppAccess]
    may_break_glass: bool
    outside: bool


async def account_page(env: Environment, request: Request) -> Response:
    """Show the page."""
    done = done_here(env, request)
    return await page(env, request, done=done if done in DONE else "")


async def page(env: Environment, request: Request, *, status: int = 200, done: str = "", problem: str = "") -> Response:
    """Render the page, with what was done or what went wrong (words of `account_text`)."""
    language = page_language(env, request)

    def work(connection: Connection) -> _Found | None:
        session, now = current_session(env, connection, request), utc_now()
        if session is None:
            return None
        name = session.account.name
        return _Found(
            session,
            enrolled(connection, name),
            list_sessions(connection, name, now, env.settings.session_idle_s),
            apps_with_access(connection, name, now, language),
            may_break_glass(connection, session.account),
            bool(list_providers(connection, enabled=True)),
        )

    found = await env.database.run(work)
    if found is None:
        return redirect(SIGN_IN_AGAIN)
    return render(env, request, "account.html", status=status, done=done, problem=problem, **_values(env, found))


def _values(env: Environment, found: _Found) -> dict[str, Any]:
    account = found.session.account
    return {
        "account": account,
        "enrolled": found.enrolled,
        "required": account.role in second_factor_roles(env.settings),
        "sessions": found.sessions,
        "browser_name": browser_name,
        "this_session": found.session.session_digest,
        "apps": found.apps,
        "may_break_glass": found.may_break_glass,
        "outside": found.outside,
        "passkeys_work": rp_id(env.settings) is not None,
        "min_length": MIN_PASSWORD_LENGTH,
    }


def apps_with_access(connection: Connection, account: str, now: datetime, language: str) -> list[AppAccess]:
    """Return the apps, not our own, that were agreed to or hold a live authorization, by client id."""
    column = tables.token_family.c
    rows = connection.execute(
        select(column.client_id, column.signed_in_at, column.session_digest)
        .where(column.account == account, column.revoked_at.is_(None), column.expires_at > now)
        .order_by(column.client_id, column.signed_in_at)
    ).all()
    agreed = {consent.client_id: consent for consent in consents_of(connection, account)}
    apps = []
    for client_id in sorted({*agreed, *(row.client_id for row in rows)}):
        client, consent = find_client(connection, client_id), agreed.get(client_id)
        if client is None or client.first_party:
            continue
        live = [row for row in rows if row.client_id == client_id]
        moments = [consent.agreed_at] if consent else [row.signed_in_at for row in live if row.signed_in_at]
        scopes = consent.agreed.split() if consent else []
        apps.append(
            AppAccess(
                client_id,
                app_name(client, language),
                min(moments, default=None),
                any(row.session_digest is None for row in live),
                tuple(explain_scope(scope, language) for scope in scopes),
            )
        )
    return apps
