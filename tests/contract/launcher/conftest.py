"""A whole installation as a process: record, identity, DICOMweb, Orthanc, launcher; and people who use the launcher."""

from __future__ import annotations

import html
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from foramen.app import migrate
from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.people.accounts import ensure_user, require_account
from foramen.identity.rights.permissions import GRANT, change_permission
from foramen.kernel.identifiers import derived_uid, new_trace_id
from foramen.supervisor.ports import free_port
from terminology import systems
from terminology.codes import SYNTHETIC
from tests.builders.browser import Browser, forms_of
from tests.builders.databases import new_database
from tests.builders.dicom import private_orthanc
from tests.builders.installation import ISSUER, Installation, wait_for
from tests.builders.prediction import source_datasets

PASSWORD = "correct horse battery staple"
PATIENTS = ("p1", "p2")
OFFLINE = "openid fhirUser profile offline_access launch/patient patient/*.rs"
ONLINE = "openid fhirUser profile online_access launch/patient patient/*.rs"
EHR = "launch openid fhirUser profile online_access patient/*.rs"
APPS = ("growth", "spine-risk", "rehab")
APP_SCOPE = "launch openid fhirUser online_access patient/Patient.rs patient/Observation.rs patient/ImagingStudy.rs"


@dataclass
class Site:
    """The installation, and what is in it: a Study Instance UID for each patient."""

    running: Installation
    studies: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, httpx.Cookies] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return self.running.settings.origin

    @asynccontextmanager
    async def signed_in(self, name: str = "surgeon", *, anew: bool = False) -> AsyncIterator[Pages]:
        """A signed-in browser on the launcher's first page: in the session that tests share, or in one of its own."""
        async with httpx.AsyncClient(base_url=self.origin, timeout=30, trust_env=False) as http:
            browser = Pages(http, self.origin)
            if not anew:
                http.cookies = httpx.Cookies(self.cookies.get(name))
            page = await browser.open("/apps/launcher/")
            if 'name="password"' in page.text:
                await browser.submit(username=name, password=PASSWORD)
                if not anew:
                    self.cookies[name] = http.cookies
            yield browser


class Pages(Browser):
    """A browser that follows redirects to the launcher's pages, too."""

    async def _follow(self, response: httpx.Response) -> httpx.Response:
        self.redirected_to = None
        while response.is_redirect:
            assert response.next_request is not None
            target = str(response.next_request.url)
            if not target.startswith((f"{self.origin}/auth/", f"{self.origin}/apps/launcher")):
                self.redirected_to = target
                return response
            response = await self.http.get(target)
        self.page = response
        return response

    async def press(self, name: str, value: str, **values: str) -> httpx.Response:
        """Send the form that has this button."""
        assert self.page is not None
        forms = forms_of(self.page.text)
        form = next(iter([form for form in forms if (name, value) in form.buttons]), None)
        assert form is not None, f"no button {value} on the page"
        return await self._follow(await self.http.post(form.action, data={**form.fields, **values, name: value}))

    async def choose(self, do: str = "open", **values: str) -> httpx.Response:
        """Fill in the launcher's form."""
        assert self.page is not None
        csrf = forms_of(self.page.text)[0].fields["csrf"]
        data = {"csrf": csrf, "app": "foramen-launcher", "type": "standalone", "scope": ONLINE, "do": do, **values}
        return await self._follow(await self.http.post("/apps/launcher/", data=data))

    async def walk(self, **values: str) -> httpx.Response:
        """Be the app up to its tokens, or up to where the fault shows."""
        await self.open("/apps/launcher/")
        page = await self.choose(**values)
        assert "/trials/" in str(page.url), page.text
        page = await self.press("step", "authorize")
        if "/auth/patient" in str(page.url):
            page = await self.press("patient", "p1")
        if "/auth/consent" in str(page.url):
            page = await self.press("decision", "allow")
        return page

    @property
    def cards(self) -> list[tuple[str, int]]:
        """Steps and status codes on the page of a trial."""
        assert self.page is not None
        found = re.findall(r'data-step="([a-z]+)" data-status="(\d+)"', self.page.text)
        return [(step, int(status)) for step, status in found]

    @property
    def text(self) -> str:
        """What the page says."""
        assert self.page is not None
        return html.unescape(re.sub(r"<[^>]+>", " ", self.page.text))

    @property
    def checks(self) -> dict[str, bool]:
        """Findings on the page: name → whether it is as it should be."""
        assert self.page is not None
        found = re.findall(r'<li class="(good|bad)"><b>.</b><strong>([^<]+)</strong>', self.page.text)
        return {name: kind == "good" for kind, name in found}


@pytest.fixture(scope="package")
def site(postgres_url: str) -> Iterator[Site]:
    """One installation for all tests of the launcher, with two patients and their studies."""
    home = Path(tempfile.mkdtemp(prefix="foramen-launcher-"))
    database_url = new_database(postgres_url)
    changes: dict[str, Any] = {"launcher": "on", "demo": True, "default_patient_id_issuer": ISSUER}
    with private_orthanc(home, port=free_port(), database_url=database_url, **changes) as orthanc:
        migrate(orthanc.settings)
        running = Installation(orthanc.settings, database_url, orthanc)
        _people(database_url, running.settings.port)
        running.start_web()
        try:
            running.sign_in()
            yield Site(running, _fill(running))
        finally:
            running.stop_web()


def _people(database_url: str, port: int) -> None:
    ensure_user(database_url, "surgeon", PASSWORD, "physician", "dr1")
    ensure_user(database_url, "colleague", PASSWORD, "physician", "dr2")
    ensure_user(database_url, "tech", PASSWORD, "engineer")
    with transaction(database_url) as connection:
        surgeon = require_account(connection, "surgeon")
        change_permission(connection, surgeon, "try-launches", GRANT, reason="test", decided_by="test")
        for name in APPS:
            callback = f"http://localhost:{port}/{name}/callback"
            save_client(connection, Client(name, PUBLIC, APP_SCOPE, (callback,), f"http://localhost:{port}/{name}/"))


def _fill(running: Installation) -> dict[str, str]:
    studies = {}
    for patient in PATIENTS:
        identifier = {"system": f"{systems.IDENTIFIER_PATIENT}/{ISSUER}", "value": f"SYN-{patient}"}
        _put(running, "Patient", patient, identifier=[identifier], name=[{"text": f"SYN {patient}"}])
        subject = {"reference": f"Patient/{patient}"}
        _put(running, "Observation", f"o-{patient}", status="final", code={"text": "pain"}, subject=subject)
        visit = {"class": {"code": "AMB"}, "type": [{"text": "SYN 门诊"}], "period": {"start": "2026-11-20"}}
        _put(running, "Encounter", f"e-{patient}", status="finished", subject=subject, **visit)
        studies[patient] = derived_uid("test", new_trace_id())
        running.store(source_datasets(2, study_instance_uid=studies[patient], patient_id=f"SYN-{patient}"))
    for study in studies.values():
        wanted = f"ImagingStudy?identifier={systems.DICOM_UID}|urn:oid:{study}"
        wait_for(lambda wanted=wanted: running.search(wanted), 30, "the study in the record")
    return studies


def _put(running: Installation, kind: str, logical_id: str, **content: Any) -> None:
    tag = {"tag": [SYNTHETIC.coding()]}
    body = {"resourceType": kind, "id": logical_id, "meta": tag, **content}
    answer = running.http.put(
        f"/fhir/{kind}/{logical_id}", json=body, headers={"Content-Type": "application/fhir+json"}
    )
    assert answer.status_code in (200, 201), answer.text
