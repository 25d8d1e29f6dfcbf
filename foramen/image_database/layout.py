"""Render the pages: plain HTML forms that work without JavaScript; one page has a script of ours that adds to it.

OWASP Secure Headers; CSP level 3 (a nonce for the one style sheet, no script inside a page); WCAG 2.2 AA.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from foramen.identity.cookies import LANGUAGE, SESSION, read_cookie, set_cookie
from foramen.identity.done_notice import done_here, forget_done, vouch
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.environment import Environment
from foramen.identity.opaque_tokens import csrf_token
from foramen.identity.pages import SECURITY_HEADERS, page_language
from foramen.identity.text import LANGUAGES
from foramen.image_database.page import MOUNT, Call
from foramen.image_database.text import WORDS, said
from foramen.kernel.errors import InvalidRequestError

_LAST_PAGE = 40
_LANGUAGE_AGE_S = 365 * 24 * 3600
_TEMPLATES = Templates(
    loader=PackageLoader("foramen.image_database"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
SCRIPT = Path(__file__).parent / "assets" / "upload.js"


def page_number(call: Call) -> int:
    """Return which page of a list was asked for.

    Raises
    ------
    InvalidRequestError
        It is no number from 1 on.
    """
    asked = call.query.get("page", "1")
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:4]) <= _LAST_PAGE):
        raise InvalidRequestError(f"The page of a list is a number from 1 to {_LAST_PAGE}")
    return int(asked[:4])


def last_page() -> int:
    """Number of the last page that can be asked for: further ones are found by narrowing the search."""
    return _LAST_PAGE


def render(
    call: Call, template: str, *, status: int = 200, problem: str = "", script: bool = False, **values: Any
) -> Response:
    """Render a page in the frame; `problem` is shown above it, `script` says that it loads `upload.js`."""
    word = f"done_{done_here(call.env, call.request)}"
    values |= {"call": call, "menu": call.menu, "problem": said(problem, call.language), "done": call.t.get(word, "")}
    response = _respond(call.env, call.request, template, status, values, script)
    forget_done(call.env, call.request, response)
    return response


def done(call: Call, path: str, word: str) -> Response:
    """Answer a form: back to a page (303), which says `done_WORD` of the texts, once."""
    return vouch(call.env, redirect(f"{MOUNT}{path}?{urlencode({'done': word})}"))


def message_page(
    env: Environment, request: Request, status: int, word: str, detail: str = "", call: Call | None = None
) -> Response:
    """Render an error: `error_WORD` of the texts, with the navigation when the person is signed in."""
    detail = said(detail, page_language(env, request))
    values = {"call": call, "menu": call.menu if call else (), "problem": "", "done": ""}
    return _respond(env, request, "message.html", status, values | {"word": word, "detail": detail}, False)


def _respond(
    env: Environment, request: Request, template: str, status: int, values: dict[str, Any], script: bool
) -> Response:
    language = page_language(env, request)
    nonce = secrets.token_urlsafe(16)
    other = next(item for item in LANGUAGES if item != language)
    query = {name: value for name, value in request.query_params.items() if name not in ("lang", "done")}
    html = _TEMPLATES.get_template(template).render(
        t=WORDS[language],
        said=lambda text: said(text, language),
        language=language,
        nonce=nonce,
        base=MOUNT,
        csrf=csrf_token(env.csrf_secret, read_cookie(env, request, SESSION) or ""),
        language_url=f"{request.url.path}?{urlencode({**query, 'lang': other})}",
        script=script,
        **values,
    )
    response = HTMLResponse(html, status_code=status, headers=SECURITY_HEADERS)
    scripts = "script-src 'self'; connect-src 'self'; " if script else ""
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; {scripts}style-src 'nonce-{nonce}'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    response.headers["Content-Language"] = WORDS[language]["html_lang"]
    if request.query_params.get("lang") in LANGUAGES:
        set_cookie(env, response, LANGUAGE, language, _LANGUAGE_AGE_S)
    return response
