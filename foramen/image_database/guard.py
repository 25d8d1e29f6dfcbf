"""The door of every page: session, permission, form token; refusals are pages and audit events.

OWASP Authorization Cheat Sheet (deny by default, check on every request); CSRF Prevention Cheat Sheet.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.audit_outbox import record
from foramen.identity.cookies import SESSION, read_cookie
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.environment import Environment
from foramen.identity.framed.call import MenuEntry
from foramen.identity.opaque_tokens import csrf_matches
from foramen.identity.pages import page_language
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.people.sessions import Session
from foramen.identity.rights.permissions import rights_of
from foramen.identity.security_event import REFUSED, SecurityEvent
from foramen.image_database.layout import message_page
from foramen.image_database.page import MOUNT, Call, Page
from foramen.image_database.receiving import receive_files
from foramen.image_database.text import WORDS
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.http_edge import trace_id_of
from foramen.kernel.log import get_log

SIGN_IN = "/auth/login?then=images"


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
            return await _answer(call, request)
        except InteropError as error:
            return _refused(here, request, call, error)
        except Exception:  # noqa: BLE001  the last line of defence: never a stack trace to a client
            trace_id = trace_id_of(request)
            get_log().exception("unexpected error", trace_id=trace_id, route=f"{MOUNT}{page.path}")
            return message_page(here, request, 500, "internal", f"trace id {trace_id}", call)
        finally:
            here.audit.wake()

    return handle


async def _enter(env: Environment, request: Request, page: Page, pages: Sequence[Page]) -> Call | Response:
    """Return the call, or where somebody who has to sign in first is sent, or the refusal."""

    def look(connection: Connection) -> _Visitor | None:
        session = current_session(env, connection, request)
        if session is None:
            return None
        permissions = rights_of(connection, session.account).permissions
        if page.needs not in permissions:
            record(
                connection,
                SecurityEvent(
                    what="images",
                    outcome=REFUSED,
                    account=session.account.name,
                    fhir_user=session.account.fhir_user,
                    address=client_address(request),
                    reason=f"{request.method} {MOUNT}{page.path} {page.needs}",
                ),
            )
        return _Visitor(session, permissions)

    visitor = await env.database.run(look)
    if visitor is None:
        return redirect(SIGN_IN)
    language = page_language(env, request)
    menu = _menu(pages, page, visitor.permissions)
    call = Call(
        env, request, page, visitor.session, visitor.permissions, language, WORDS[language], menu,
        query_parameters(request),
    )  # fmt: skip
    if page.needs not in visitor.permissions:
        return message_page(env, request, 403, "forbidden", "", call)
    return call


async def _answer(call: Call, request: Request) -> Response:
    method = "GET" if request.method == "HEAD" else request.method
    if method != "POST":
        return await call.page.methods[method](call)
    folder = None
    try:
        if call.page.files:
            form, folder = await receive_files(request, call.env.settings)
        else:
            form = await form_parameters(request)
        # Bound to the session alone: a cookie from before sign-in is no proof here.
        session = read_cookie(call.env, request, SESSION) or ""
        if not csrf_matches(call.env.csrf_secret, session, form.pop("csrf", "")):
            return message_page(call.env, request, 403, "csrf", "", call)
        return await call.page.methods[method](dataclasses.replace(call, form=form, folder=folder))
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _menu(pages: Sequence[Page], current: Page, permissions: frozenset[str]) -> tuple[MenuEntry, ...]:
    places = [page for page in pages if page.menu and page.needs in permissions]
    return tuple(
        MenuEntry(page.menu, f"{MOUNT}{page.path}", page.path == (current.path if current.menu else "/"))
        for page in places
    )


def _refused(env: Environment, request: Request, call: Call | None, error: InteropError) -> Response:
    """Render an error. The record and the gateway have left their own audit events of what they refused."""
    word = {403: "forbidden", 404: "not_found", 409: "conflict", 413: "too_large"}.get(error.status, "invalid")
    if isinstance(error, UpstreamError):
        word = "unavailable"
    elif error.status >= 500:
        word = "internal"
    response = message_page(env, request, error.status, word, error.message if error.status == 400 else "", call)
    response.headers.update({name: value for name, value in error.headers.items() if name.lower() == "retry-after"})
    return response
