"""A server at a name that allows passkeys, people of several roles, and what a person does on its pages."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyotp
from argon2 import PasswordHasher
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.routing import Mount

from foramen.identity.app import IdentityService, bootstrap, ensure_user, migrate
from foramen.identity.database import transaction
from foramen.identity.people import passwords
from foramen.kernel.settings import Settings
from tests.builders.authenticator import Authenticator
from tests.builders.browser import Browser

ORIGIN = "http://localhost:18998"
PASSWORD = "correct horse battery"
SESSION = "foramen-session"


@dataclass
class People:
    """What a test works with."""

    settings: Settings
    service: IdentityService
    app: Starlette
    database_url: str

    def http(self, address: str = "192.0.2.10", **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, client=(address, 40000))
        return httpx.AsyncClient(transport=transport, base_url=self.settings.origin, headers=headers)

    def browser(self, address: str = "192.0.2.10", **headers: str) -> Browser:
        return Browser(self.http(address, **headers), self.settings.origin)

    def execute(self, statement: str, **values: Any) -> list[Any]:
        with transaction(self.database_url) as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def add(self, name: str, role: str = "physician") -> None:
        ensure_user(self.database_url, name, PASSWORD, role, f"dr-{name}" if role == "physician" else None)

    def events(self, what: str) -> list[tuple[str, str | None]]:
        rows = self.execute("SELECT event FROM identity.audit_outbox ORDER BY id")
        found = [row[0] for row in rows if row[0]["subtype"][0]["code"] == what]
        return [(event["outcome"], event.get("outcomeDesc")) for event in found]

    def authenticator(self, **values: Any) -> Authenticator:
        return Authenticator(self.settings.origin, "localhost", **values)

    async def passwords(
        self, browser: Browser, name: str, password: str = PASSWORD, page: str = "/auth/login?then=account"
    ):
        """Type name and password."""
        await browser.open(page)
        return await browser.submit(username=name, password=password)

    async def signed_in(self, name: str, **headers: str) -> Browser:
        """A browser signed in by password alone, on the account page."""
        browser = self.browser(**headers)
        page = await self.passwords(browser, name)
        assert browser.page is not None
        assert str(browser.page.url).endswith("/auth/account"), page.text
        return browser

    async def enrol_totp(self, browser: Browser) -> tuple[pyotp.TOTP, list[str]]:
        """Set up an authenticator app on the page that is open; returns it and the recovery codes shown."""
        assert browser.page is not None
        otp = otp_of(browser.page.text)
        page = await browser.submit(code=otp.now())
        assert page.status_code == 200, page.text
        self.forget_step()
        return otp, re.findall(r"<li><code>([A-Z2-7-]{27})</code>", page.text)

    def forget_step(self) -> None:
        """As if the time of the code used last were over, so that a test need not wait for the next one."""
        self.execute("UPDATE identity.totp_device SET last_step = 0")


def otp_of(page: str) -> pyotp.TOTP:
    """Read the secret that a page shows."""
    found = re.search(r'<code class="secret">([A-Z2-7 ]+)</code>', page)
    assert found is not None, page
    return pyotp.TOTP(found.group(1).replace(" ", ""))


def options_of(page: str) -> dict[str, Any]:
    """Read the WebAuthn options of a page."""
    found = re.search(r'data-options="([^"]+)"', page)
    assert found is not None, page
    return json.loads(html.unescape(found.group(1)))


def cookie_of(browser: Browser, name: str = SESSION) -> str | None:
    """Value of a cookie."""
    return next((cookie.value for cookie in browser.http.cookies.jar if cookie.name == name), None)


def cold_code(otp: pyotp.TOTP) -> str:
    """A code that is wrong now and near now."""
    now = int(time.time()) // 30
    near = {otp.generate_otp(now + step) for step in range(-3, 4)}
    return next(code for code in (f"{number:06d}" for number in range(100)) if code not in near)


@asynccontextmanager
async def people_server(database_url: str, home: Path, **settings: Any) -> AsyncIterator[People]:
    """Run the authorization server in this process, with Argon2id at a small cost as tests sign in often."""
    hasher, passwords._PASSWORDS = passwords._PASSWORDS, PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
    values = Settings(home=home, **{"public_url": ORIGIN, "sign_in_failures_per_address": 10_000, **settings})
    migrate(database_url)
    bootstrap(values, database_url)
    service = IdentityService(values, database_url)
    yield People(values, service, Starlette(routes=[Mount("/auth", service.app)]), database_url)
    await service.stop()
    passwords._PASSWORDS = hasher
