"""Render the pages: plain HTML forms that work without JavaScript; one page has a script of ours that adds to it.

OWASP Secure Headers; CSP level 3 (a nonce for the one style sheet, no script inside a page); WCAG 2.2 AA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.done_notice import done_here, forget_done
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.environment import Environment
from foramen.identity.framed.frame import Frame, page_number_of
from foramen.identity.pages import page_language
from foramen.image_database.page import MOUNT, Call
from foramen.image_database.text import WORDS, said

_LAST_PAGE = 40
_FRAME = Frame("foramen.image_database", MOUNT, WORDS, "'self' data:")
SCRIPT = Path(__file__).parent / "assets" / "upload.js"


def page_number(call: Call) -> int:
    """Return which page of a list was asked for.

    Raises
    ------
    InvalidRequestError
        It is no number from 1 on.
    """
    return page_number_of(call.query, _LAST_PAGE, f"The page of a list is a number from 1 to {_LAST_PAGE}")


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


def done(path: str, word: str) -> Response:
    """Answer a form: back to a page (303), which says `done_WORD` of the texts, once."""
    return redirect(f"{MOUNT}{path}?{urlencode({'done': word})}")


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
    values = {**values, "script": script, "said": lambda text: said(text, language)}
    return _FRAME.respond(env, request, template, status, values, script=script)
