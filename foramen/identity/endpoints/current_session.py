"""The session behind a request's cookie, and the check of a form's token.

OWASP CSRF Prevention Cheat Sheet (signed token bound to the session).
"""

from __future__ import annotations

from sqlalchemy import Connection
from starlette.requests import Request

from foramen.identity.cookies import CSRF, SESSION, read_cookie
from foramen.identity.database import utc_now
from foramen.identity.environment import Environment
from foramen.identity.opaque_tokens import csrf_matches, digest
from foramen.identity.people.second_factor import second_factor_roles
from foramen.identity.people.sessions import Session, live_session


def current_session(
    env: Environment, connection: Connection, request: Request, *, lock: bool = False
) -> Session | None:
    """Return the live session of a request, if any; `lock` as for `live_session`."""
    cookie = read_cookie(env, request, SESSION)
    if cookie is None:
        return None
    return live_session(
        connection,
        digest(cookie),
        utc_now(),
        env.settings.session_idle_s,
        two_factor_roles=second_factor_roles(env.settings),
        lock=lock,
    )


def form_is_ours(env: Environment, request: Request, form: dict[str, str]) -> bool:
    """Whether the form came from a page we gave this browser."""
    presented = form.get("csrf", "")
    bindings = (read_cookie(env, request, SESSION), read_cookie(env, request, CSRF))
    return any(csrf_matches(env.csrf_secret, binding, presented) for binding in bindings if binding)
