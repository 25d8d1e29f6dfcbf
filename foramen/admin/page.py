"""What a page of the administration app is, and what its handler is given.

A handler is called only after the guard let the request in: the person is signed in with the factors the role needs,
has one of the page's permissions now, and a form came from a page of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.identity.done_notice import done_here
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.framed.call import FramedCall, require
from foramen.identity.people.accounts import Account
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
OPERATE_DEVICES = "operate-devices"
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
class Call(FramedCall[Page]):
    """One request that the guard let in; `account` is the administrator."""

    @property
    def done(self) -> str:
        """Word of what was just done here; empty where the address alone says so."""
        return done_here(self.env, self.request)

    def may(self, *permissions: str) -> bool:
        """Whether the person has one of these now: for what a page shows; changes are decided in `foramen.identity`."""
        return any(name in self.permissions for name in permissions)

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
