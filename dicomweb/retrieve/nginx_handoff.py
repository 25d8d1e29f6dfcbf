"""Whole files are sent by nginx, by sendfile(2), after access and audit were settled here.

One file: X-Accel-Redirect to an internal location. Many in multipart/related: to a plan, a small file of our own text
with one server-side include for each stored file; nginx sends each include as a subrequest. Only plans are parsed for
includes, never what was stored. https://nginx.org/en/docs/http/ngx_http_ssi_module.html; deploy/nginx.conf
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.retrieve.pieces import FileSpan, Piece

CAPABLE = "x-foramen-sendfile"
"""Header that our nginx configuration sets on every request it passes on; a client's own is overwritten there."""
FILES, PLANS = "/-/archive/", "/-/plans/"
_WORTH_BYTES = 64 * 1024
_MOST_FILES = 60_000  # nginx counts the subrequests of a request in 16 bits.
_KEPT_S = 120
_INCLUDE = b"<!--#"


class NginxHandoff:
    """Turns a body of whole files into an instruction for nginx."""

    def __init__(self, *, enabled: bool, storage: Path, plans: Path) -> None:
        self._enabled, self._storage, self._plans = enabled, f"{storage}/", plans

    def possible(self, request: Request) -> bool:
        """Whether this request came through an nginx that knows our locations."""
        return self._enabled and request.headers.get(CAPABLE) == "nginx"

    def response(self, request: Request, pieces: Sequence[Piece], headers: dict[str, str]) -> Response | None:
        """Return the instruction, or None when nginx cannot or need not send this body."""
        files = [piece for piece in pieces if isinstance(piece, FileSpan)]
        if not self.possible(request) or request.method == "HEAD" or not files or len(files) > _MOST_FILES:
            return None
        if sum(piece.length for piece in files) < _WORTH_BYTES or not all(piece.whole for piece in files):
            return None
        if not all(str(piece.path).startswith(self._storage) for piece in files):
            return None
        told = {
            name: value for name, value in headers.items() if name.lower() not in ("content-length", "accept-ranges")
        }
        if len(pieces) == 1:  # nginx cuts ranges itself.
            return Response(None, headers=told | {"X-Accel-Redirect": FILES + self._name(files[0])})
        if any(_INCLUDE in piece for piece in pieces if isinstance(piece, bytes)):
            return None
        return Response(None, headers=told | {"X-Accel-Redirect": PLANS + self._write(pieces)})

    def _name(self, piece: FileSpan) -> str:
        return str(piece.path).removeprefix(self._storage)

    def _write(self, pieces: Sequence[Piece]) -> str:
        self._plans.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._clean()
        name = secrets.token_hex(16)
        lines = [
            piece
            if isinstance(piece, bytes)
            # Waiting: one file is open at a time, however many there are.
            else f'<!--#include virtual="{FILES}{self._name(piece)}" wait="yes" -->'.encode()
            for piece in pieces
        ]
        with (self._plans / name).open("xb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(b"".join(lines))
        return name

    def _clean(self) -> None:
        """Remove old plans: nginx opens one at once, and an open file outlives its name."""
        limit = time.time() - _KEPT_S
        for entry in os.scandir(self._plans):
            try:
                if entry.stat().st_mtime < limit:
                    Path(entry.path).unlink(missing_ok=True)
            except FileNotFoundError:  # Another process was faster.
                continue
