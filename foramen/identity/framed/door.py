"""The door of every page of plain forms: session, permission, form token; refusals are pages (ADR 0025, 0037).

OWASP Authorization Cheat Sheet (deny by default, check on every request); CSRF Prevention Cheat Sheet. An app says what
differs: which rights count, how a form is read, what is left behind of a refusal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.cookies import SESSION, clear_cookie, read_cookie, set_cookie
from foramen.identity.database import utc_now
from foramen.identity.done_notice import vouch
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.endpoints.enrol import is_recent
from foramen.identity.environment import Environment
from foramen.identity.framed.call import FramedCall, MenuEntry, require
from foramen.identity.opaque_tokens import csrf_matches
from foramen.identity.pages import page_language
from foramen.identity.parameters import query_parameters
from foramen.identity.people.accounts import Account
from foramen.identity.people.sessions import Session
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.http_edge import trace_id_of
from foramen.kernel.log import get_log

_FIRST = "/"
"""An app's first page, to which every sign-in for it leads."""
_RETURN_AGE_S = 600
_LONGEST_RETURN = 100
_WORDS = {403: "forbidden", 404: "not_found", 409: "conflict", 413: "too_large"}


class GuardedPage(Protocol):
    """One line of an app's route table, as far as the door reads it."""

    @property
    def path(self) -> str:
        """Below the app, with parameters as Starlette writes them."""

    @property
    def methods(self) -> dict[str, Any]:
        """A handler for each method; GET shows, POST changes."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Permissions of which one is asked for on every request."""

    @property
    def menu(self) -> str:
        """Word of its place in the navigation; empty: not there."""

    @property
    def recent(self) -> bool:
        """Whether the sign-in has to be younger than a quarter of an hour."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A place of the navigation in another app: its word, its address, the permission that it asks for."""

    word: str
    href: str
    needs: str


C = TypeVar("C", bound=FramedCall[Any])


@dataclass(frozen=True, slots=True)
class Door(Generic[C]):
    """The door of one app.

    Parameters
    ----------
    mount, then : path of the app, and its word at the sign-in page
    words : texts by language
    elsewhere : places of other apps, at the end of the navigation
    call : class of what a handler is given
    rights : permissions of an account now
    received : reads the form of a call, and clears away what came with it
    message : the page of an error: status, word, detail, and the call where there is one
    told : what an error's page says beside its word
    refused : leaves the audit event of a call that ended in an error
    """

    mount: str
    then: str
    words: dict[str, dict[str, str]]
    elsewhere: tuple[Elsewhere, ...]
    call: Callable[..., C]
    rights: Callable[[Connection, Account], frozenset[str]]
    received: Callable[[C], AbstractAsyncContextManager[C]]
    message: Callable[[Environment, Request, int, str, str, C | None], Response]
    told: Callable[[InteropError], str]
    refused: Callable[[C, InteropError], Awaitable[None]]

    def handler(
        self, env: Callable[[], Environment], page: GuardedPage, pages: Sequence[GuardedPage]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Wrap the handlers of a page with the guard and the rendering of errors."""

        async def handle(request: Request) -> Response:
            here = env()
            call: C | None = None
            try:
                call = await self._call(here, request, page, pages)
                if call is None:
                    return self._to_sign_in(here, request)
                way_on = self._way_on(call) if page.path == _FIRST else None
                if way_on is not None:
                    return way_on
                require(page, call.permissions)
                if page.recent and not is_recent(call.session, utc_now()):
                    return self._to_sign_in(here, request)
                return await self._answer(call)
            except InteropError as error:
                if call is not None:
                    await self.refused(call, error)
                return self._told(here, request, call, error)
            except Exception:  # noqa: BLE001  the last line of defence: never a stack trace to a client
                trace_id = trace_id_of(request)
                get_log().exception("unexpected error", trace_id=trace_id, route=f"{self.mount}{page.path}")
                return self.message(here, request, 500, "internal", f"trace id {trace_id}", call)
            finally:
                here.audit.wake()

        return handle

    async def _call(
        self, env: Environment, request: Request, page: GuardedPage, pages: Sequence[GuardedPage]
    ) -> C | None:
        """Return the call of who is signed in; what they may do is not asked yet."""

        def look(connection: Connection) -> tuple[Session, frozenset[str]] | None:
            session = current_session(env, connection, request)
            return (session, self.rights(connection, session.account)) if session else None

        visitor = await env.database.run(look)
        if visitor is None:
            return None
        language = page_language(env, request)
        menu = self._menu(pages, page, visitor[1])
        return self.call(env, request, page, *visitor, language, self.words[language], menu, query_parameters(request))

    async def _answer(self, call: C) -> Response:
        method = "GET" if call.request.method == "HEAD" else call.request.method
        if method != "POST":
            response: Response = await call.page.methods[method](call)
            return response
        async with self.received(call) as sent:
            form = dict(sent.form)
            # Bound to the session alone: a cookie from before sign-in is no proof here.
            session = read_cookie(call.env, call.request, SESSION) or ""
            if not csrf_matches(call.env.csrf_secret, session, form.pop("csrf", "")):
                return self.message(call.env, call.request, 403, "csrf", "", call)
            response = await call.page.methods[method](dataclasses.replace(sent, form=form))
            return vouch(call.env, response)

    def _menu(
        self, pages: Sequence[GuardedPage], current: GuardedPage, permissions: frozenset[str]
    ) -> tuple[MenuEntry, ...]:
        """Return the places one may go to; the one with the longest path that leads here is the current one."""
        places = [page for page in pages if page.menu and set(page.needs) & permissions]
        here = max((page.path for page in places if _within(current.path, page.path)), key=len, default="")
        own = [MenuEntry(page.menu, f"{self.mount}{page.path}", page.path == here) for page in places]
        others = [MenuEntry(place.word, place.href, False) for place in self.elsewhere if place.needs in permissions]
        return (*own, *others)

    def _told(self, env: Environment, request: Request, call: C | None, error: InteropError) -> Response:
        word = _WORDS.get(error.status, "internal" if error.status >= 500 else "invalid")
        if isinstance(error, UpstreamError):
            word = "unavailable"
        response = self.message(env, request, error.status, word, self.told(error), call)
        after = {name: value for name, value in error.headers.items() if name.lower() == "retry-after"}
        response.headers.update(after)
        return response

    def _to_sign_in(self, env: Environment, request: Request) -> Response:
        """Send to the sign-in page and remember where to come back to: a page of ours, never what a link says."""
        response = redirect(f"/auth/login?then={self.then}")
        # A picture inside a page is no place to come back to.
        if request.method in ("GET", "HEAD") and request.headers.get("sec-fetch-dest", "document") == "document":
            place = quote(request.url.path.removeprefix(self.mount), safe="/")
            if len(place) <= _LONGEST_RETURN:
                set_cookie(env, response, self._return, place, _RETURN_AGE_S)
        return response

    @property
    def _return(self) -> str:
        return f"foramen-{self.then}-return"

    def _way_on(self, call: C) -> Response | None:
        """From an app's first page to the one that was wanted before signing in, once; or to the first one may see."""
        place = read_cookie(call.env, call.request, self._return)
        if place is None:
            own = [entry.href for entry in call.menu if entry.href.startswith(f"{self.mount}/")]
            return redirect(own[0]) if own and not set(call.page.needs) & call.permissions else None
        inside = place.startswith("/") and ".." not in place and "//" not in place
        response = redirect(f"{self.mount}{place}" if inside else f"{self.mount}/")
        clear_cookie(call.env, response, self._return)
        return response


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place.rstrip('/')}/")
