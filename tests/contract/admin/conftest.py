"""The real identity service and administration app with people of every role in two institutions (SYNTHETIC)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pyotp
import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from starlette.applications import Starlette
from starlette.routing import Mount

from foramen.admin.app import admin_routes
from foramen.identity.app import ensure_user
from foramen.identity.rights.institutions import ensure_institution
from foramen.identity.rights.roles import ROLES
from tests.builders.browser import Browser
from tests.contract.smart.people import PASSWORD, People, otp_of, people_server

ACCOUNTS = {  # name: (role, institution, Practitioner, Patient)
    "boss": ("system-administrator", None, None, None),
    "deputy": ("system-administrator", "north", None, None),
    "north-admin": ("institution-administrator", "north", None, None),
    "south-admin": ("institution-administrator", "south", None, None),
    "north-doctor": ("physician", "north", "dr-north", None),
    "south-doctor": ("physician", "south", "dr-south", None),
    "north-helper": ("assistant", "north", None, None),
    "south-helper": ("assistant", "south", None, None),
    "scientist": ("researcher", "north", None, None),
    "builder": ("engineer", "north", None, None),
    "ill": ("patient", "north", None, "p1"),
    "machine": ("service", None, None, None),
}
OF_ROLE = {role: next(name for name, about in ACCOUNTS.items() if about[0] == role) for role in ROLES}


class AdminBrowser(Browser):
    """A browser that stays on pages of the administration app, too."""

    def _ours(self, target: str) -> bool:
        return target.startswith((f"{self.origin}/auth/", f"{self.origin}/apps/admin"))

    async def _follow(self, response):
        self.redirected_to = None
        while response.is_redirect:
            target = str(response.next_request.url) if response.next_request else response.headers["location"]
            if not self._ours(target):
                self.redirected_to = target
                return response
            response = await self.http.get(target)
        self.page = response
        return response

    @property
    def path(self) -> str:
        """Path of the page that is open."""
        assert self.page is not None
        return self.page.url.path


@dataclass
class Admin(People):
    """What a test works with; browsers are signed in once and kept."""

    engine: Engine | None = None
    browsers: dict[str, AdminBrowser] = field(default_factory=dict)
    otps: dict[str, pyotp.TOTP] = field(default_factory=dict)

    def execute(self, statement: str, **values: Any) -> list[Any]:
        """Run one statement on a connection that is kept: the leak tests ask for much."""
        assert self.engine is not None
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def browser(self, address: str = "192.0.2.10", **headers: str) -> AdminBrowser:
        return AdminBrowser(self.http(address, **headers), self.settings.origin)

    async def signed_in(self, name: str, **headers: str) -> AdminBrowser:
        """A browser in which `name` is signed in, with a second factor where the role needs one."""
        if name not in self.browsers or not await self._lives(self.browsers[name]):
            self.browsers[name] = await self.sign_in(name, **headers)
        return self.browsers[name]

    async def sign_in(self, name: str, page: str = "/auth/login?then=account", **headers: str) -> AdminBrowser:
        """Sign in anew."""
        browser = self.browser(**{"accept-language": "en", **headers})
        await browser.open(page)
        shown = await browser.submit(username=name, password=PASSWORD)
        if browser.path == "/auth/enrol":
            self.otps[name] = otp_of(shown.text)
            await browser.submit(code=self.otps[name].now())
            self.forget_step()
        elif browser.path == "/auth/second-factor":
            await browser.submit(code=self.otps[name].now())
            self.forget_step()
        return browser

    async def _lives(self, browser: AdminBrowser) -> bool:
        return (await browser.http.get("/auth/account")).status_code == 200

    def restore(self) -> None:
        """Bring accounts back to how they were made, and end what tests decided."""
        for name, (role, institution, practitioner, patient) in ACCOUNTS.items():
            self.execute(
                "UPDATE identity.account SET role = :role, institution = :institution, practitioner = :practitioner, "
                "patient = :patient, disabled = false, failed_attempts = 0, locked_until = NULL WHERE name = :name",
                role=role,
                institution=institution,
                practitioner=practitioner,
                patient=patient,
                name=name,
            )
        self.execute("UPDATE identity.permission_change SET ended_at = now() WHERE ended_at IS NULL")
        self.execute("UPDATE identity.delegation SET ended_at = now() WHERE ended_at IS NULL")

    def audited(self, what: str, account: str) -> list[dict]:
        """Events of one kind by one account, the oldest first."""
        rows = self.execute(
            "SELECT event FROM identity.audit_outbox WHERE event #>> '{subtype,0,code}' = :what "
            "AND event #>> '{agent,0,altId}' = :account ORDER BY id",
            what=what,
            account=account,
        )
        return [row[0] for row in rows]

    def refusals(self, account: str) -> int:
        """How many events say that something was refused to an account."""
        rows = self.execute(
            "SELECT count(*) FROM identity.audit_outbox WHERE event #>> '{subtype,0,code}' = 'account' "
            "AND event ->> 'outcome' = '4' AND event #>> '{agent,0,altId}' = :account",
            account=account,
        )
        return int(rows[0][0])


@pytest.fixture(scope="module")
async def admin(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Admin]:
    """One server for the tests of a file; nothing delivers its audit events, so that tests can read them."""
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as people:
        for institution in ("north", "south"):
            ensure_institution(module_database_url, institution, f"{institution} 院", f"{institution} hospital")
        for name, (role, institution, practitioner, patient) in ACCOUNTS.items():
            ensure_user(module_database_url, name, PASSWORD, role, practitioner, institution, patient=patient)
        app = Starlette(routes=[Mount("/auth", people.service.app), *admin_routes(people.service, people.settings)])
        engine = create_engine(make_url(module_database_url).set(drivername="postgresql+psycopg"), pool_size=1)
        yield Admin(people.settings, people.service, app, module_database_url, engine)
        engine.dispose()
