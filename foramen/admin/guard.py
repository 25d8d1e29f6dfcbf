"""The door of every page: session, second factor, permission, form token; refusals are pages and audit events.

OWASP Authorization Cheat Sheet (deny by default, check on every request); CSRF Prevention Cheat Sheet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.admin.layout import message_page
from foramen.admin.page import MOUNT, Call, Page, require
from foramen.admin.text import WORDS
from foramen.identity.cookies import SESSION, clear_cookie, read_cookie, set_cookie
from foramen.identity.database import utc_now
from foramen.identity.done_notice import vouch
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.endpoints.enrol import is_recent
from foramen.identity.environment import Environment
from foramen.identity.framed.call import MenuEntry
from foramen.identity.opaque_tokens import csrf_matches
from foramen.identity.pages import page_language
from foramen.identity.parameters import form_parameters, query_parameters
from foramen.identity.people.sessions import Session
from foramen.identity.rights.administration import record_refusal
from foramen.identity.rights.permissions import own_rights
from foramen.kernel.errors import ForbiddenError, InteropError, NotFoundError, UpstreamError
from foramen.kernel.http_edge import trace_id_of
from foramen.kernel.log import get_log

SIGN_IN = "/auth/login?then=admin"
RETURN = "foramen-admin-return"
_RETURN_AGE_S = 600
_LONGEST_RETURN = 100
_LINES = ("reason", "note", "redirect_uris", "jwks", "scope")
"""Fields that may have several lines."""


@dataclass(frozen=True, slots=True)
class _Visitor:
    session: Session
    permissions: frozenset[str]


def handler(
    env: Callable[[], Environment], page: Page, pages: Sequence[Page]
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap the handlers of a page with the guard and the rendering of errors."""

    async def handle(request: Request) -> Response:
        here = env()
        call: Call | None = None
        try:
            entered = await _enter(here, request, page, pages)
            if isinstance(entered, Response):
                return entered
            call = entered
            method = "GET" if request.method == "HEAD" else request.method
            response = await page.methods[method](call)
            return vouch(here, response) if method == "POST" else response
        except InteropError as error:
            return await _refused(here, request, page, call, error)
        except Exception:  # noqa: BLE001  the last line of defence: never a stack trace to a client
            trace_id = trace_id_of(request)
            get_log().exception("unexpected error", trace_id=trace_id, route=f"{MOUNT}{page.path}")
            return message_page(here, request, 500, "internal", f"trace id {trace_id}", call)

    return handle


async def _enter(env: Environment, request: Request, page: Page, pages: Sequence[Page]) -> Call | Response:
    """Return the call, or where somebody who has to sign in first is sent."""

    def look(connection: Connection) -> _Visitor | None:
        session = current_session(env, connection, request)
        return _Visitor(session, own_rights(connection, session.account).permissions) if session else None

    visitor = await env.database.run(look)
    if visitor is None:
        return _to_sign_in(env, request)
    session, permissions = visitor.session, visitor.permissions
    language = page_language(env, request)
    query = query_parameters(request)
    call = Call(
        env,
        request,
        page,
        session,
        permissions,
        language,
        WORDS[language],
        _menu(pages, page, permissions),
        query,
    )
    try:
        require(page, permissions)
    except ForbiddenError as error:
        return await _refused(env, request, page, call, error)
    if page.recent and not is_recent(session, utc_now()):
        return _to_sign_in(env, request)
    if request.method != "POST":
        return call
    form = await form_parameters(request, lines=_LINES)
    # Bound to the session alone: a cookie from before sign-in is no proof here.
    if not csrf_matches(env.csrf_secret, read_cookie(env, request, SESSION) or "", form.get("csrf", "")):
        return message_page(env, request, 403, "csrf", "", call)
    form.pop("csrf")
    return Call(env, request, page, session, permissions, language, call.t, call.menu, query, form)


def _menu(pages: Sequence[Page], current: Page, permissions: frozenset[str]) -> tuple[MenuEntry, ...]:
    """Return the places one may go to; the one with the longest path that leads here is the current one."""
    places = [page for page in pages if page.menu and any(name in permissions for name in page.needs)]
    here = max((page.path for page in places if _within(current.path, page.path)), key=len, default="")
    return tuple(MenuEntry(page.menu, f"{MOUNT}{page.path}", page.path == here) for page in places)


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place.rstrip('/')}/")


def _to_sign_in(env: Environment, request: Request) -> Response:
    """Send to the sign-in page and remember where to come back to: a page of ours, never what a link says."""
    response = redirect(SIGN_IN)
    if request.method in ("GET", "HEAD"):
        place = quote(request.url.path.removeprefix(MOUNT), safe="/")
        if len(place) <= _LONGEST_RETURN:
            set_cookie(env, response, RETURN, place, _RETURN_AGE_S)
    return response


def come_back(env: Environment, request: Request) -> Response | None:
    """Return the redirect to the page somebody wanted before signing in, once."""
    place = read_cookie(env, request, RETURN)
    if place is None:
        return None
    inside = place.startswith("/") and ".." not in place and "//" not in place
    response = redirect(f"{MOUNT}{place}" if inside else f"{MOUNT}/")
    clear_cookie(env, response, RETURN)
    return response


async def _refused(env: Environment, request: Request, page: Page, call: Call | None, error: InteropError) -> Response:
    """Render an error; what was refused, or hidden by being called absent, leaves an audit event."""
    if call is not None and isinstance(error, ForbiddenError | NotFoundError):
        account, target = call.account, str(request.path_params.get("name", ""))
        reason = f"{request.method} {MOUNT}{page.path} {' or '.join(page.needs)}"
        await env.database.run(lambda connection: record_refusal(connection, account, reason, target))
        env.audit.wake()
    word = {403: "forbidden", 404: "not_found", 409: "conflict"}.get(error.status, "invalid")
    if isinstance(error, UpstreamError):
        word = "unavailable"
    elif error.status >= 500:
        word = "internal"
    response = message_page(env, request, error.status, word, error.message, call)
    response.headers.update(error.headers)
    return response
