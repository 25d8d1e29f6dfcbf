"""Render a page in its frame: plain HTML forms, a nonce for the one style sheet, the language switch.

OWASP Secure Headers; CSP level 3; WCAG 2.2 AA.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from foramen.identity.cookies import LANGUAGE, SESSION, read_cookie, set_cookie
from foramen.identity.environment import Environment
from foramen.identity.opaque_tokens import csrf_token
from foramen.identity.pages import SECURITY_HEADERS, page_language
from foramen.identity.text import LANGUAGES
from foramen.kernel.errors import InvalidRequestError

_LANGUAGE_AGE_S = 365 * 24 * 3600


class Frame:
    """The frame of one app's pages.

    Parameters
    ----------
    package : whose folder `templates` holds the templates; a name that a template misses is an error
    mount : path of the app
    words : texts by language
    images : sources of images, as CSP writes them
    """

    def __init__(self, package: str, mount: str, words: Mapping[str, dict[str, str]], images: str = "data:") -> None:
        self._templates = Templates(
            loader=PackageLoader(package),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._mount, self._words, self._images = mount, words, images

    def respond(
        self,
        env: Environment,
        request: Request,
        template: str,
        status: int,
        values: Mapping[str, Any],
        *,
        script: bool = False,
    ) -> Response:
        """Render a template.

        Parameters
        ----------
        values : what the template names beside the frame's own
        script : the page may load scripts of ours and call us by them
        """
        language = page_language(env, request)
        nonce = secrets.token_urlsafe(16)
        other = next(item for item in LANGUAGES if item != language)
        query = {name: value for name, value in request.query_params.items() if name not in ("lang", "done")}
        html = self._templates.get_template(template).render(
            t=self._words[language],
            language=language,
            nonce=nonce,
            base=self._mount,
            csrf=csrf_token(env.csrf_secret, read_cookie(env, request, SESSION) or ""),
            language_url=f"{request.url.path}?{urlencode({**query, 'lang': other})}",
            **values,
        )
        response = HTMLResponse(html, status_code=status, headers=SECURITY_HEADERS)
        scripts = "script-src 'self'; connect-src 'self'; " if script else ""
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; {scripts}style-src 'nonce-{nonce}'; img-src {self._images}; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        response.headers["Content-Language"] = self._words[language]["html_lang"]
        if request.query_params.get("lang") in LANGUAGES:
            set_cookie(env, response, LANGUAGE, language, _LANGUAGE_AGE_S)
        return response


def page_number_of(query: Mapping[str, str], last: int, refusal: str) -> int:
    """Return which page of a list was asked for.

    Raises
    ------
    InvalidRequestError
        It is no number from 1 to the last that can be asked for; `refusal` says so.
    """
    asked = query.get("page", "1")
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked[:7]) <= last):
        raise InvalidRequestError(refusal)
    return int(asked[:7])
