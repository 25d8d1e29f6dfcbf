"""What a page of the image database is, and what its handler is given.

A handler is called only after the guard let the request in: the person is signed in, has the page's permission now,
and a form came from a page of ours. What of the images somebody sees is decided at `/dicom-web` and `/fhir` alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.environment import Environment
from foramen.identity.people.accounts import Account
from foramen.identity.people.sessions import Session

MOUNT = "/apps/images"
READ = "read-identified"
MANAGE = "manage-images"


@dataclass(frozen=True, slots=True)
class Page:
    """One line of the route table.

    Parameters
    ----------
    path : below `/apps/images`, with parameters as Starlette writes them
    methods : a handler for each method; GET shows, POST changes
    needs : permission that is asked for on every request
    menu : word of its place in the navigation; empty: not there
    files : whether its form brings files (multipart/form-data)
    """

    path: str
    methods: dict[str, Handler]
    needs: str
    menu: str = ""
    files: bool = False


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """One place of the navigation that the person may go to."""

    word: str
    href: str
    current: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One request that the guard let in; `folder` holds the files of the form, if it brought any."""

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
    folder: Path | None = None

    @property
    def account(self) -> Account:
        """The person."""
        return self.session.account

    @property
    def may_manage(self) -> bool:
        """Whether labels and uploads are offered; whether they are done is decided elsewhere."""
        return MANAGE in self.permissions

    def part(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.request.path_params[name])

    def link(self, **changes: str | int) -> str:
        """Return this page's address with parts of its query changed; an empty value leaves a part out."""
        kept = {name: value for name, value in self.query.items() if name not in ("done", "page", "lang")}
        parts = {name: str(value) for name, value in {**kept, **changes}.items() if str(value)}
        path = self.request.url.path
        return f"{path}?{urlencode(parts)}" if parts else path


Handler = Callable[[Call], Awaitable[Response]]
