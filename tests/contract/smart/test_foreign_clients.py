"""Clients written by others work unmodified: SMART's `fhirclient` (Python) and Authlib's OAuth client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from authlib.integrations.httpx_client import AsyncOAuth2Client
from fhirclient import client
from fhirclient.models.patient import Patient
from fhirclient.server import FHIRNotFoundException

from foramen.identity.database import transaction
from foramen.identity.oauth.launches import Launch, create_launch
from tests.builders.browser import Browser
from tests.contract.smart.conftest import PASSWORD
from tests.contract.smart.live_server import live_server


@pytest.fixture
def live(database_url: str, tmp_path: Path):
    return live_server(database_url, tmp_path)


async def test_fhirclient_launches_and_reads(live, database_url: str):
    async with live as (settings, callback):
        with transaction(database_url) as connection:
            launch = create_launch(connection, Launch("foreign", "surgeon", "p1"))
        options = {
            "app_id": "foreign",
            "api_base": settings.fhir_base,
            "redirect_uri": callback,
            "scope": "openid fhirUser patient/*.rs",
            "launch_token": launch,
        }
        app = await asyncio.to_thread(lambda: client.FHIRClient(settings=options))
        url = await asyncio.to_thread(lambda: app.authorize_url)
        async with httpx.AsyncClient(base_url=settings.origin) as http:
            browser = Browser(http, settings.origin)
            await browser.open(url)
            await browser.submit(username="surgeon", password=PASSWORD)
            await browser.submit(decision="allow")
        assert browser.redirected_to is not None
        await asyncio.to_thread(app.handle_callback, browser.redirected_to)
        assert app.ready
        assert app.launch_context["patient"] == "p1"
        patient = await asyncio.to_thread(Patient.read, "p1", app.server)
        assert patient.name[0].text == "SYN p1"
        with pytest.raises(FHIRNotFoundException):
            await asyncio.to_thread(Patient.read, "p2", app.server)


async def test_authlib_client_with_pkce_nonce_and_refresh(live):
    async with live as (settings, callback):
        discovery = httpx.get  # plain reading of the published document, as any client would
        document = (await asyncio.to_thread(discovery, f"{settings.origin}/.well-known/openid-configuration")).json()
        oauth = AsyncOAuth2Client(
            "foreign",
            redirect_uri=callback,
            scope="openid fhirUser offline_access user/*.rs",
            code_challenge_method="S256",
            token_endpoint_auth_method="none",
        )
        verifier = "v" * 64
        url, state = oauth.create_authorization_url(
            document["authorization_endpoint"], code_verifier=verifier, aud=settings.fhir_base, nonce="n"
        )
        async with httpx.AsyncClient(base_url=settings.origin) as http:
            browser = Browser(http, settings.origin)
            await browser.open(url)
            await browser.submit(username="surgeon", password=PASSWORD)
            await browser.submit(decision="allow")
        token = await oauth.fetch_token(
            document["token_endpoint"],
            authorization_response=browser.redirected_to,
            code_verifier=verifier,
            state=state,
        )
        assert token["scope"] == "openid fhirUser offline_access user/*.rs"
        renewed = await oauth.refresh_token(document["token_endpoint"], refresh_token=token["refresh_token"])
        assert renewed["access_token"] != token["access_token"]
        await oauth.aclose()
