"""Render the pages: plain HTML forms without scripts, the frame with its navigation, messages, confirmations, paging.

OWASP Secure Headers; CSP level 3 (a nonce for the one style sheet, no script at all); WCAG 2.2 AA.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from foramen.admin.page import MOUNT, Call
from foramen.admin.text import MESSAGES, WORDS
from foramen.identity.cookies import LANGUAGE, SESSION, read_cookie, set_cookie
from foramen.identity.done_notice import forget_done
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.environment import Environment
from foramen.identity.opaque_tokens import csrf_token
from foramen.identity.pages import SECURITY_HEADERS, page_language
from foramen.identity.policy import table
from foramen.identity.text import LANGUAGES
from foramen.kernel.errors import InteropError, InvalidRequestError

PAGE_SIZE = 50
_LAST_PAGE = 100_000
_LANGUAGE_AGE_S = 365 * 24 * 3600
_TEMPLATES = Templates(
    loader=PackageLoader("foramen.admin"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list is shown; `number` counts from 1."""

    number: int
    total: int
    size: int = PAGE_SIZE

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return (self.number - 1) * self.size

    @property
    def last(self) -> int:
        """Number of the last page."""
        return max(1, -(-self.total // self.size))


def page_number(call: Call) -> int:
    """Return which page of a list was asked for.

    Raises
    ------
    InvalidRequestError
        It is no number from 1 on.
    """
    asked = call.query.get("page", "1")
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:7]) <= _LAST_PAGE):
        raise InvalidRequestError("The page of a list is a number from 1 on")
    return int(asked[:7])


@dataclass(frozen=True, slots=True)
class Undo:
    """The way back from what was just done: the form that goes with the message.

    Parameters
    ----------
    action : path below `/apps/admin` that takes it back, by POST
    fields : hidden fields
    """

    action: str
    fields: dict[str, str]


def render(
    call: Call, template: str, *, status: int = 200, problem: str = "", undo: Undo | None = None, **values: Any
) -> Response:
    """Render a page in the frame.

    Parameters
    ----------
    problem : what went wrong, in the page's language (`told`); shown above the page
    undo : shown with the message of what was done (`?done=WORD`, see `done`)
    values : what the template names; nothing has a default, a name that is missing is an error
    """
    word = f"done_{call.done}"
    said = call.t.get(word, "")
    values |= {"call": call, "menu": call.menu, "problem": problem, "said": said, "undo": undo if said else None}
    return _respond(call.env, call.request, template, status, values)


def done(path: str, word: str, **query: str) -> Response:
    """Answer a form: back to a page (303), which says `done_WORD` of the texts."""
    return redirect(f"{MOUNT}{path}?{urlencode({**query, 'done': word})}")


def confirm(
    call: Call,
    *,
    question: str,
    explanation: str,
    action: str,
    back: str,
    fields: dict[str, str] | None = None,
    reason: bool = False,
    problem: str = "",
    harmless: bool = False,
) -> Response:
    """Ask before something is done: a page of its own, whose form is sent to the address of this page.

    Parameters
    ----------
    question, explanation, action : what is asked, what will happen, and the button, in the page's language
    back : path below `/apps/admin` of the way out
    fields : hidden fields of the form
    reason : whether a reason has to be typed (field `reason`, 1 to 500 characters)
    problem : what was wrong with the form sent before
    harmless : shows the button as an ordinary one
    """
    return render(
        call,
        "confirm.html",
        status=400 if problem else 200,
        problem=problem,
        question=question,
        explanation=explanation,
        action=action,
        back=back,
        fields=fields or {},
        reason=reason,
        harmless=harmless,
        typed=call.form.get("reason", ""),
    )


def told(call: Call, error: InteropError) -> str:
    """Return the message of an error in the page's language, or in English where there is no translation."""
    return MESSAGES[call.language].get(error.message, error.message)


def message_page(
    env: Environment, request: Request, status: int, word: str, detail: str = "", call: Call | None = None
) -> Response:
    """Render an error: `error_WORD` of the texts, with the navigation when the person is signed in."""
    language = page_language(env, request)
    detail = MESSAGES[language].get(detail, detail)
    values = {"call": call, "menu": call.menu if call else (), "problem": "", "said": "", "undo": None}
    return _respond(env, request, "message.html", status, values | {"word": word, "detail": detail})


def _respond(env: Environment, request: Request, template: str, status: int, values: dict[str, Any]) -> Response:
    language = page_language(env, request)
    nonce = secrets.token_urlsafe(16)
    other = next(item for item in LANGUAGES if item != language)
    query = {name: value for name, value in request.query_params.items() if name not in ("lang", "done")}
    html = _TEMPLATES.get_template(template).render(
        t=WORDS[language],
        language=language,
        nonce=nonce,
        base=MOUNT,
        permission_name=lambda name: str(table("permissions").get(name, {}).get(language, name)),
        csrf=csrf_token(env.csrf_secret, read_cookie(env, request, SESSION) or ""),
        language_url=f"{request.url.path}?{urlencode({**query, 'lang': other})}",
        **values,
    )
    response = HTMLResponse(html, status_code=status, headers=SECURITY_HEADERS)
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    response.headers["Content-Language"] = WORDS[language]["html_lang"]
    forget_done(env, request, response)
    if request.query_params.get("lang") in LANGUAGES:
        set_cookie(env, response, LANGUAGE, language, _LANGUAGE_AGE_S)
    return response
