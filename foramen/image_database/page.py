"""What a page of the image database is, and what its handler is given.

A handler is called only after the guard let the request in: the person is signed in, has the page's permission now,
and a form came from a page of ours. What of the images somebody sees is decided at `/dicom-web` and `/fhir` alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response

from foramen.identity.framed.call import FramedCall

MOUNT = "/apps/images"
READ = "read-identified"
MANAGE = "manage-images"
MAINTAIN = "maintain-record"


@dataclass(frozen=True, slots=True)
class Page:
    """One line of the route table.

    Parameters
    ----------
    path : below `/apps/images`, with parameters as Starlette writes them
    methods : a handler for each method; GET shows, POST changes
    needs : permissions of which one is asked for on every request
    menu : word of its place in the navigation; empty: not there
    files : whether its form brings files (multipart/form-data)
    recent : whether the sign-in has to be younger than a quarter of an hour
    """

    path: str
    methods: dict[str, Handler]
    needs: tuple[str, ...]
    menu: str = ""
    files: bool = False
    recent: bool = False


@dataclass(frozen=True, slots=True)
class Call(FramedCall[Page]):
    """One request that the guard let in; `folder` holds the files of the form, if it brought any."""

    folder: Path | None = None

    @property
    def may_manage(self) -> bool:
        """Whether labels and uploads are offered; whether they are done is decided elsewhere."""
        return MANAGE in self.permissions


Handler = Callable[[Call], Awaitable[Response]]
