"""`fhirclient` (npm), unmodified, in Node: EHR launch with PKCE, reading, another patient refused, refresh."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PUBLIC, Client, save_client
from foramen.identity.oauth.launches import Launch, create_launch
from foramen.identity.oauth.operator_token import operator_token
from tests.builders.browser import Browser
from tests.contract.smart.conftest import PASSWORD
from tests.contract.smart.live_server import free_port, live_server

ROOT = Path(__file__).parents[3]
NODE = Path(sys.executable).with_name("node")
APP = Path(__file__).with_name("javascript_app.cjs")
SCOPE = "launch openid fhirUser offline_access patient/Patient.rs patient/Observation.rs"


@contextmanager
def javascript_app(port: int) -> Iterator[None]:
    """Run the app for a while."""
    command = [str(NODE), str(APP), str(ROOT / "smart_apps"), str(port), "javascript", SCOPE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.strip() == "ready", said + process.stdout.read()
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.requirement("hl7.fhir.uv.smart-app-launch_2.2.0#launch-ehr")
async def test_fhirclient_for_javascript_launches_reads_and_refreshes(database_url: str, tmp_path: Path):
    port = free_port()
    app = f"http://127.0.0.1:{port}"
    async with live_server(database_url, tmp_path) as (settings, _):
        client = Client("javascript", PUBLIC, SCOPE, (f"{app}/callback",), f"{app}/launch", "脚本", "Script")
        with transaction(database_url) as connection:
            save_client(connection, client)
            launch = create_launch(connection, Launch("javascript", "surgeon", "p1"))
        token = operator_token(settings, database_url, "system/Observation.cruds")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}
        async with httpx.AsyncClient(base_url=settings.origin, timeout=30) as http:
            for patient in ("p1", "p2"):
                finding = {"resourceType": "Observation", "id": f"o-{patient}", "status": "final"}
                finding |= {"code": {"text": "SYN pain"}, "subject": {"reference": f"Patient/{patient}"}}
                written = await http.put(f"/fhir/Observation/o-{patient}", json=finding, headers=headers)
                assert written.status_code == 201, written.text
            with await asyncio.to_thread(javascript_app, port):
                query = urlencode({"iss": settings.fhir_base, "launch": launch})
                sent = await http.get(f"{app}/launch?{query}")
                assert sent.is_redirect, sent.text
                browser = Browser(http, settings.origin)
                await browser.open(sent.headers["location"])
                await browser.submit(username="surgeon", password=PASSWORD)
                await browser.submit(decision="allow")
                assert browser.redirected_to is not None
                answer = await http.get(browser.redirected_to)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {
            "patient": "SYN p1",
            "user": "Practitioner/dr1",
            "scope": SCOPE,
            "observations": ["o-p1"],
            "other": 404,
            "renewed": True,
            "again": "p1",
        }
