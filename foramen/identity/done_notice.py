"""What a page says was done, it says once, and only where it was: a cookie of ours vouches for the address.

`?done=WORD` alone may be typed by anybody, or come with a link; the answer to a form sets the cookie with it.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.cookies import DONE, clear_cookie, read_cookie, set_cookie
from foramen.identity.environment import Environment

_AGE_S = 60
_FIELD = "done"


def vouch(env: Environment, response: Response, location: str = "") -> Response:
    """Vouch for the address that an answer leads to, where it says that something was done; returns the answer.

    Parameters
    ----------
    location : where a page leads; a redirect says so itself
    """
    parts = urlsplit(location or response.headers.get("location", ""))
    mark = _mark(env, parts.path, parts.query)
    if mark is not None:
        set_cookie(env, response, DONE, mark, _AGE_S)
    return response


def done_here(env: Environment, request: Request) -> str:
    """Return the word of what was done, or nothing where the address alone says so."""
    vouched, mark = read_cookie(env, request, DONE), _mark(env, request.url.path, request.url.query)
    if vouched is None or mark is None or not hmac.compare_digest(vouched.encode(), mark.encode()):
        return ""
    return dict(parse_qsl(request.url.query))[_FIELD]


def forget_done(env: Environment, request: Request, response: Response) -> None:
    """It was said: it is not said again when the page is opened anew."""
    if read_cookie(env, request, DONE) is not None:
        clear_cookie(env, response, DONE)


def _mark(env: Environment, path: str, query: str) -> str | None:
    parameters = parse_qsl(query)
    if _FIELD not in dict(parameters):
        return None
    address = f"done:{path}?{urlencode(sorted(parameters))}"
    return hmac.new(env.csrf_secret.encode(), address.encode(), hashlib.sha256).hexdigest()
