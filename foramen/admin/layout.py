"""Render the pages: plain HTML forms without scripts, the frame with its navigation, messages, confirmations, paging.

OWASP Secure Headers; CSP level 3 (a nonce for the one style sheet, no script at all); WCAG 2.2 AA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from foramen.admin.page import MOUNT, Call
from foramen.admin.text import MESSAGES, WORDS
from foramen.identity.done_notice import forget_done
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.environment import Environment
from foramen.identity.framed.frame import Frame, page_number_of
from foramen.identity.pages import page_language
from foramen.identity.policy import table
from foramen.kernel.errors import InteropError

PAGE_SIZE = 50
_LAST_PAGE = 100_000
_FRAME = Frame("foramen.admin", MOUNT, WORDS)


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
    return page_number_of(call.query, _LAST_PAGE, "The page of a list is a number from 1 on")


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

    def permission_name(name: str) -> str:
        return str(table("permissions").get(name, {}).get(language, name))

    response = _FRAME.respond(env, request, template, status, {**values, "permission_name": permission_name})
    forget_done(env, request, response)
    return response
