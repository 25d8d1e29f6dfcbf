"""Render the launcher's pages: the look and the headers of the sign-in pages, wider, without any script.

CSP level 3; OWASP Secure Headers. Nothing is cached: tokens are on the page of the person who got them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode, urlsplit

from jinja2 import ChoiceLoader, PackageLoader, StrictUndefined
from jinja2 import Environment as Templates
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from foramen.identity.cookies import CSRF, LANGUAGE, csrf_binding, set_cookie
from foramen.identity.environment import Environment
from foramen.identity.opaque_tokens import csrf_token
from foramen.identity.pages import SECURITY_HEADERS, page_language
from foramen.identity.text import LANGUAGES, WORDS
from foramen.launcher.steps import PATH
from foramen.launcher.text import LAUNCHER_WORDS

_TEMPLATES = Templates(
    loader=ChoiceLoader([PackageLoader("foramen.launcher"), PackageLoader("foramen.identity")]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_LANGUAGE_AGE_S = 365 * 24 * 3600


def words(env: Environment, request: Request) -> dict[str, Any]:
    """Return the words of the page in its language."""
    language = page_language(env, request)
    return {**WORDS[language], **LAUNCHER_WORDS[language]}


def render(
    env: Environment,
    request: Request,
    template: str,
    *,
    status: int = 200,
    form_targets: Iterable[str] = (),
    **values: Any,
) -> HTMLResponse:
    """Render a page.

    Parameters
    ----------
    form_targets : URLs of apps that a form may lead to; browsers apply CSP form-action to redirects too
    """
    language = page_language(env, request)
    nonce = secrets.token_urlsafe(16)
    browser, new = csrf_binding(env, request)
    other = next(item for item in LANGUAGES if item != language)
    back = request.url.path if request.method == "GET" else f"{PATH}/"
    html = _TEMPLATES.get_template(template).render(
        t={**WORDS[language], **LAUNCHER_WORDS[language]},
        language=language,
        nonce=nonce,
        csrf=csrf_token(env.csrf_secret, browser),
        path=PATH,
        language_url=f"{back}?{urlencode({'lang': other})}",
        **values,
    )
    response = HTMLResponse(html, status_code=status, headers=SECURITY_HEADERS)
    targets = " ".join(["'self'", *sorted({_target(url) for url in form_targets})])
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self' data:; form-action {targets}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    response.headers["Content-Language"] = WORDS[language]["html_lang"]
    if new:
        set_cookie(env, response, CSRF, browser)
    if request.query_params.get("lang") in LANGUAGES:
        set_cookie(env, response, LANGUAGE, language, _LANGUAGE_AGE_S)
    return response


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f"{parts.scheme}:"


def redirect(location: str) -> Response:
    """Redirect with GET (RFC 9700 §4.12)."""
    return RedirectResponse(location, status_code=303, headers=SECURITY_HEADERS)


def message(env: Environment, request: Request, status: int, reason: str, detail: str = "") -> HTMLResponse:
    """Say why something is not done; `reason` is a key of the words."""
    said = words(env, request)["reasons"][reason]
    return render(env, request, "launcher_message.html", status=status, message=said, detail=detail)
