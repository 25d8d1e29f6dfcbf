"""Serves the built SMART apps: pages under `/apps/<name>/`, the portal at `/`, files packed at build time (stage 7).

https://www.w3.org/TR/CSP3/; RFC 9110 §12.5.3 (Accept-Encoding); RFC 9111 (caching)
"""

from __future__ import annotations

import mimetypes
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from foramen.kernel.settings import Settings

DIST = Path(__file__).parent / "dist"
PAGES = {"portal": "portal", "result-review": "result_review", "care-plan": "care_plan"}
"""App name in the URL → folder of its page."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_YEAR_S = 365 * 24 * 3600
_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
_TYPES = {".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".svg": "image/svg+xml"}

# The pages hold no inline script. Decoders of compressed pixels are WebAssembly; component styles are inserted at run
# time, hence 'unsafe-inline' for style only. `connect-src 'self'`: record and pixels are on the same origin, nothing
# else is ever called.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_NOT_BUILT = """<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>Foramen</title>
<body style="font-family:sans-serif;max-width:40em;margin:4em auto">
<h1>应用尚未构建 · The apps are not built</h1>
<p>请在项目目录运行 <code>make setup</code>，然后刷新此页。</p>
<p>Run <code>make setup</code> in the project folder, then reload this page.</p>"""


def build_app(settings: Settings, dist: Path = DIST) -> Starlette:
    """Build the application that serves the apps.

    Parameters
    ----------
    settings : for the origin that the apps are registered with
    dist : folder of the build
    """
    server = _AppServer(settings, dist)
    return Starlette(
        routes=[
            Route("/", server.portal),
            Route("/apps/assets/{name}", server.asset),
            Route("/apps/{name}", server.without_slash),
            Route("/apps/{name}/", server.page),
        ],
        exception_handlers={404: _nowhere},
    )


class _AppServer:
    def __init__(self, settings: Settings, dist: Path) -> None:
        self._origin = urlsplit(settings.origin)
        self._dist = dist

    async def portal(self, request: Request) -> Response:
        return self._page(request, "portal")

    async def page(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name == "portal":  # one address only: redirect URIs are compared character by character
            return RedirectResponse("/", 308, SECURITY_HEADERS)
        return self._page(request, name)

    async def without_slash(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in PAGES:
            return _not_found()
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/apps/{name}/{query}", 308, SECURITY_HEADERS)

    def _page(self, request: Request, name: str) -> Response:
        elsewhere = self._canonical(request)
        if elsewhere is not None:
            return RedirectResponse(elsewhere, 307, SECURITY_HEADERS)
        folder = PAGES.get(name)
        if folder is None:
            return _not_found()
        file = self._dist / folder / "index.html"
        if not file.is_file():
            return HTMLResponse(_NOT_BUILT, 503, {**SECURITY_HEADERS, "Cache-Control": "no-store", "Retry-After": "30"})
        content = file.read_bytes()
        headers = {
            **SECURITY_HEADERS,
            "Cache-Control": "no-cache",
            "ETag": f'"{sha256(content).hexdigest()[:32]}"',
            "Content-Language": "zh-CN, en-US",
        }
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return HTMLResponse(content, headers=headers)

    def _canonical(self, request: Request) -> str | None:
        """Where a person who typed another name of this machine must go: tokens are bound to one origin."""
        asked, own = request.url.hostname, self._origin.hostname
        if asked == own or asked not in _LOOPBACK or own not in _LOOPBACK:
            return None
        query = f"?{request.url.query}" if request.url.query else ""
        return f"{self._origin.scheme}://{self._origin.netloc}{request.url.path}{query}"

    async def asset(self, request: Request) -> Response:
        """Return one file of the build, in the best encoding the browser takes; names carry a hash of the content."""
        name = request.path_params["name"]
        folder = self._dist / "assets"
        file = folder / name
        # The route allows no slash; a name that is not a plain member of the folder does not exist.
        if Path(name).name != name or name.endswith((".br", ".gz")) or not file.is_file():
            return _not_found()
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = {
            **SECURITY_HEADERS,
            "Cache-Control": f"public, max-age={_YEAR_S}, immutable",
            "Last-Modified": formatdate(file.stat().st_mtime, usegmt=True),
            "Vary": "Accept-Encoding",
        }
        accepted = _accepted_encodings(request.headers.get("accept-encoding", ""))
        for encoding, suffix in _ENCODINGS:
            packed = folder / f"{name}{suffix}"
            if encoding in accepted and packed.is_file():
                return FileResponse(packed, headers={**headers, "Content-Encoding": encoding}, media_type=kind)
        return FileResponse(file, headers=headers, media_type=kind)


def _accepted_encodings(header: str) -> set[str]:
    """Encodings a client takes; one with quality 0 is refused (RFC 9110 §12.5.3)."""
    accepted = set()
    for item in header.split(","):
        encoding, _, parameters = item.strip().partition(";")
        quality = parameters.strip().removeprefix("q=")
        if encoding and quality not in ("0", "0.0", "0.00", "0.000"):
            accepted.add(encoding.strip().lower())
    return accepted


_NOT_FOUND = """<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>Foramen</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<body style="font-family:sans-serif;max-width:40em;margin:4em auto;padding:0 1em">
<h1>没有此页面 · There is no such page</h1>
<p><a href="/">返回工作台 · Back to the portal</a></p>"""


def _not_found() -> Response:
    return HTMLResponse(_NOT_FOUND, 404, SECURITY_HEADERS)


async def _nowhere(_: Request, __: Exception) -> Response:
    return _not_found()
