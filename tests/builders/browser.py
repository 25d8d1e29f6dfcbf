"""A browser without scripts: follows redirects on our own origin, keeps cookies, fills and sends HTML forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlsplit

import httpx


@dataclass
class Form:
    """One form of a page."""

    action: str
    method: str = "get"
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag == "form":
            self.forms.append(Form(values.get("action", ""), values.get("method", "get").lower()))
        elif tag == "input" and self.forms:
            self.forms[-1].fields[values["name"]] = values.get("value", "")
        elif tag == "button" and self.forms and "name" in values:
            self.forms[-1].buttons.append((values["name"], values.get("value", "")))


def forms_of(html: str) -> list[Form]:
    """Return the forms of a page."""
    parser = _Forms()
    parser.feed(html)
    return parser.forms


@dataclass
class Browser:
    """One person's browser."""

    http: httpx.AsyncClient
    origin: str
    page: httpx.Response | None = None
    redirected_to: str | None = None

    async def open(self, url: str, **options: object) -> httpx.Response:
        """Open a URL and follow redirects until a page, or until an app's redirect URI is reached."""
        response = await self.http.get(url, **options)  # type: ignore[arg-type]
        return await self._follow(response)

    async def submit(self, index: int = 0, **values: str) -> httpx.Response:
        """Fill in and send a form of the page."""
        assert self.page is not None
        form = forms_of(self.page.text)[index]
        data = {**form.fields, **values}
        return await self._follow(await self.http.post(form.action, data=data))

    async def _follow(self, response: httpx.Response) -> httpx.Response:
        self.redirected_to = None
        while response.is_redirect:
            target = str(response.next_request.url) if response.next_request else response.headers["location"]
            if not target.startswith(f"{self.origin}/auth/"):
                self.redirected_to = target
                return response
            response = await self.http.get(target)
        self.page = response
        return response

    @property
    def answer(self) -> dict[str, str]:
        """Parameters that came back to the app."""
        assert self.redirected_to is not None, self.page.text if self.page else ""
        return dict(parse_qsl(urlsplit(self.redirected_to).query))
