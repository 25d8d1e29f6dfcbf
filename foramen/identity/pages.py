"""Render the sign-in pages: plain HTML forms without scripts, with the headers that keep them unframed and uncached.

OWASP Secure Headers; CSP level 3 (nonce for the one style sheet, frame-ancestors against clickjacking).
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from foramen.identity.cookies import CSRF, LANGUAGE, csrf_binding, read_cookie, set_cookie
from foramen.identity.done_notice import forget_done
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.opaque_tokens import csrf_token
from foramen.identity.text import ERRORS, LANGUAGES, WORDS

_TEMPLATES = Templates(
    loader=PackageLoader("foramen.identity"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Pragma": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
}
_SCRIPT = "script-src 'self'; "
_LANGUAGE_AGE_S = 365 * 24 * 3600


def page_language(env: Environment, request: Request, ui_locales: str = "") -> str:
    """Choose the language: asked for on the page, remembered, asked for by the app, by the browser, else Chinese."""
    asked = request.query_params.get("lang", "")
    remembered = read_cookie(env, request, LANGUAGE) or ""
    wanted = [asked, remembered, *ui_locales.split(), *request.headers.get("accept-language", "").split(",")]
    for tag in wanted:
        language = tag.strip()[:2].lower()
        if language in LANGUAGES:
            return language
    return "zh"


def render(
    env: Environment,
    request: Request,
    template: str,
    *,
    status: int = 200,
    redirect_uri: str | None = None,
    ui_locales: str = "",
    script: bool = False,
    binding: tuple[str, bool] | None = None,
    **values: Any,
) -> HTMLResponse:
    """Render a page.

    Parameters
    ----------
    redirect_uri : where submitting the form may lead in the end; browsers apply CSP form-action to redirects too
    script : whether the page loads a script of ours (WebAuthn); there is never one inside the page
    binding : what the form token is bound to and whether it is new, where the caller had to know it before
    """
    language = page_language(env, request, ui_locales)
    nonce = secrets.token_urlsafe(16)
    browser, new = binding or csrf_binding(env, request)
    other = next(item for item in LANGUAGES if item != language)
    parts = {"request": values.get("request_id"), "then": values.get("then"), "token": values.get("token")}
    kept = {name: value for name, value in parts.items() if value}
    html = _TEMPLATES.get_template(template).render(
        t=WORDS[language],
        language=language,
        nonce=nonce,
        csrf=csrf_token(env.csrf_secret, browser),
        mount=MOUNT,
        language_url=f"{request.url.path}?{urlencode({**kept, 'lang': other})}",
        **values,
    )
    response = HTMLResponse(html, status_code=status, headers=SECURITY_HEADERS)
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; {_SCRIPT if script else ''}style-src 'nonce-{nonce}'; img-src 'self' data:; "
        f"form-action 'self'{_form_target(redirect_uri)}; frame-ancestors 'none'; base-uri 'none'"
    )
    response.headers["Content-Language"] = WORDS[language]["html_lang"]
    if new:
        set_cookie(env, response, CSRF, browser)
    forget_done(env, request, response)
    if request.query_params.get("lang") in LANGUAGES:
        set_cookie(env, response, LANGUAGE, language, _LANGUAGE_AGE_S)
    return response


def _form_target(redirect_uri: str | None) -> str:
    if not redirect_uri:
        return ""
    parts = urlsplit(redirect_uri)
    return f" {parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f" {parts.scheme}:"


def error_page(env: Environment, request: Request, status: int, reason: str, detail: str = "") -> HTMLResponse:
    """Render an error for a person; `detail` is for the app's developer and holds nothing of the server's inside."""
    language = page_language(env, request)
    return render(env, request, "error.html", status=status, message=ERRORS[language][reason], detail=detail)


def app_name(client: Any, language: str) -> str:
    """Name of an app in the page's language."""
    name = client.name_zh if language == "zh" else client.name_en
    return str(name or client.client_id)
