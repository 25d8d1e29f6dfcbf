"""What a page of the administration app is, and what its handler is given.

A handler is called only after the guard let the request in: the person is signed in with the factors the role needs,
has one of the page's permissions now, and a form came from a page of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.done_notice import done_here
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.environment import Environment
from foramen.identity.people.accounts import Account
from foramen.identity.people.sessions import Session
from foramen.identity.rights.permissions import own_rights
from foramen.kernel.errors import ForbiddenError

T = TypeVar("T")
MOUNT = "/apps/admin"

MANAGE_ACCOUNTS = "manage-accounts"
GRANT_PERMISSIONS = "grant-permissions"
MANAGE_INSTITUTIONS = "manage-institutions"
MANAGE_CLIENTS = "manage-clients"
READ_AUDIT = "read-audit"
REVIEW_BREAK_GLASS = "review-break-glass"
MAINTAIN_RECORD = "maintain-record"
ADMINISTRATION = (
    MANAGE_ACCOUNTS,
    GRANT_PERMISSIONS,
    MANAGE_INSTITUTIONS,
    MANAGE_CLIENTS,
    READ_AUDIT,
    REVIEW_BREAK_GLASS,
    MAINTAIN_RECORD,
)
"""Who has any of these sees the overview."""


@dataclass(frozen=True, slots=True)
class Page:
    """One line of the route table.

    Parameters
    ----------
    path : below `/apps/admin`, with parameters as Starlette writes them
    methods : a handler for each method; GET shows, POST changes
    needs : permissions of which one is asked for on every request; never empty
    menu : word of its place in the navigation; empty: not there
    recent : whether the sign-in has to be younger than a quarter of an hour (for what gives access to others)
    """

    path: str
    methods: dict[str, Handler]
    needs: tuple[str, ...]
    menu: str = ""
    recent: bool = False


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """One place of the navigation that the person may go to."""

    word: str
    href: str
    current: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One request that the guard let in."""

    env: Environment
    request: Request
    page: Page
    session: Session
    permissions: frozenset[str]
    language: str
    t: dict[str, str]
    menu: tuple[MenuEntry, ...]
    query: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] = field(default_factory=dict)

    @property
    def account(self) -> Account:
        """The administrator."""
        return self.session.account

    @property
    def done(self) -> str:
        """Word of what was just done here; empty where the address alone says so."""
        return done_here(self.env, self.request)

    def part(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.request.path_params[name])

    def may(self, *permissions: str) -> bool:
        """Whether the person has one of these now: for what a page shows; changes are decided in `foramen.identity`."""
        return any(name in self.permissions for name in permissions)

    def link(self, **changes: str | int) -> str:
        """Return this page's address with parts of its query changed; an empty value leaves a part out."""
        kept = {name: value for name, value in self.query.items() if name not in ("done", "page", "lang")}
        parts = {name: str(value) for name, value in {**kept, **changes}.items() if str(value)}
        path = self.request.url.path
        return f"{path}?{urlencode(parts)}" if parts else path

    async def run(self, work: Callable[[Connection, Account], T]) -> T:
        """Do something in one transaction; session and permission are asked for in it once more.

        Parameters
        ----------
        work : is given the connection and the administrator as the account is now

        Raises
        ------
        ForbiddenError
            The session has ended or the permission is gone since the request came in.
        """

        def guarded(connection: Connection) -> T:
            session = current_session(self.env, connection, self.request)
            if session is None or session.session_digest != self.session.session_digest:
                raise ForbiddenError("The session has ended")
            require(self.page, own_rights(connection, session.account).permissions)
            return work(connection, session.account)

        try:
            return await self.env.database.run(guarded)
        finally:
            self.env.audit.wake()


Handler = Callable[[Call], Awaitable[Response]]


def require(page: Page, permissions: frozenset[str]) -> None:
    """Refuse who has none of a page's permissions.

    Raises
    ------
    ForbiddenError
        See above.
    """
    if not any(name in permissions for name in page.needs):
        raise ForbiddenError(f"This needs the permission {' or '.join(page.needs)}")
