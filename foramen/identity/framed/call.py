"""What a handler of a page is given: one request that the guard let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from foramen.identity.environment import Environment
from foramen.identity.people.accounts import Account
from foramen.identity.people.sessions import Session
from foramen.kernel.errors import ForbiddenError


class NeedsPermission(Protocol):
    """A page, as far as what it asks for."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Permissions of which one is asked for on every request."""


P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """One place of the navigation that the person may go to."""

    word: str
    href: str
    current: bool


@dataclass(frozen=True, slots=True)
class FramedCall(Generic[P]):
    """One request to a page.

    Parameters
    ----------
    page : the line of the app's route table
    permissions : that the person has now
    t : texts in the page's language
    query, form : decoded parameters of the address and of the form
    """

    env: Environment
    request: Request
    page: P
    session: Session
    permissions: frozenset[str]
    language: str
    t: dict[str, str]
    menu: tuple[MenuEntry, ...]
    query: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] = field(default_factory=dict)

    @property
    def account(self) -> Account:
        """The person."""
        return self.session.account

    def part(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.request.path_params[name])

    def link(self, **changes: str | int) -> str:
        """Return this page's address with parts of its query changed; an empty value leaves a part out."""
        kept = {name: value for name, value in self.query.items() if name not in ("done", "page", "lang")}
        parts = {name: str(value) for name, value in {**kept, **changes}.items() if str(value)}
        path = self.request.url.path
        return f"{path}?{urlencode(parts)}" if parts else path


def require(page: NeedsPermission, permissions: frozenset[str]) -> None:
    """Refuse who has none of a page's permissions.

    Raises
    ------
    ForbiddenError
        See above.
    """
    if not set(page.needs) & permissions:
        raise ForbiddenError(f"This needs the permission {' or '.join(page.needs)}")
