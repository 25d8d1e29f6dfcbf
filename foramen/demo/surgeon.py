"""A surgeon at work without a browser: signs in through the plain forms, is launched by the EHR, decides.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html; RFC 7636 (PKCE)
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import orjson

from foramen.kernel.errors import UpstreamError
from foramen.kernel.fhir_client import error_of
from foramen.kernel.outcome import FHIR_JSON

_LONGEST_WALK = 12


class _Form(HTMLParser):
    """The first form of a page: where it goes and what it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the inputs of the first form that has a password or hidden fields."""
        attributes = dict(attrs)
        if tag == "form" and self.action is None and (attributes.get("method") or "get").lower() == "post":
            self.action, self._inside = attributes.get("action") or "", True
        elif tag == "input" and self._inside and attributes.get("name"):
            self.fields[str(attributes["name"])] = attributes.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        """Stop collecting at the end of the form."""
        if tag == "form":
            self._inside = False


class Surgeon:
    """One person with one cookie jar: signing in once opens every app."""

    def __init__(self, origin: str, username: str, password: str) -> None:
        self._origin, self._username, self._password = origin, username, password
        self._http = httpx.AsyncClient(timeout=60)
        self.sign_ins = 0

    async def close(self) -> None:
        """Forget the session."""
        await self._http.aclose()

    async def authorize(
        self, client_id: str, redirect_uri: str, scope: str, launch: str | None = None
    ) -> dict[str, Any]:
        """Walk the authorization code flow and return the token response.

        Raises
        ------
        UpstreamError
            The server refused, or showed a page that is not one of its forms.
        """
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        parameters = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "scope": scope,
            "state": secrets.token_urlsafe(16),
            "aud": f"{self._origin}/fhir",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **({"launch": launch} if launch else {}),
        }
        code = await self._walk(parameters, redirect_uri)
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        form |= {"client_id": client_id, "code_verifier": verifier}
        response = await self._http.post(f"{self._origin}/auth/token", data=form)
        if response.status_code != 200:
            raise UpstreamError(f"The token endpoint answered {response.status_code}")
        return dict(orjson.loads(response.content))

    async def _walk(self, parameters: dict[str, str], redirect_uri: str) -> str:
        response = await self._open(f"{self._origin}/auth/authorize", parameters)
        for _ in range(_LONGEST_WALK):
            location = response.headers.get("location")
            if location is not None:
                target = urljoin(str(response.url), location)
                if target.partition("?")[0] == redirect_uri:
                    answer = parse_qs(urlsplit(target).query)
                    if "code" not in answer or answer.get("state") != [parameters["state"]]:
                        raise UpstreamError(f"Authorization was refused: {answer.get('error', ['?'])[0]}")
                    return str(answer["code"][0])
                response = await self._open(target)
            else:
                response = await self._submit(response)
        raise UpstreamError("The sign-in did not end")

    async def _open(self, url: str, parameters: dict[str, str] | None = None) -> httpx.Response:
        """Open a page; once more when a kept connection was closed meanwhile, as browsers do (RFC 9112 §9.3.1)."""
        try:
            return await self._http.get(url, params=parameters)
        except httpx.RemoteProtocolError:
            return await self._http.get(url, params=parameters)

    async def _submit(self, page: httpx.Response) -> httpx.Response:
        form = _Form()
        form.feed(page.text)
        if form.action is None:
            raise UpstreamError(f"The sign-in page has no form ({page.status_code})")
        if "password" in form.fields:
            self.sign_ins += 1
            if self.sign_ins > 1:
                raise UpstreamError("A second sign-in was asked for, or the password was refused")
            form.fields |= {"username": self._username, "password": self._password}
        return await self._http.post(urljoin(str(page.url), form.action), data=form.fields)

    async def launch(self, portal_token: str, client_id: str, patient: str, scope: str) -> dict[str, Any]:
        """Open an app for a patient by EHR launch; returns the token response with its launch context."""
        response = await self._http.post(
            f"{self._origin}/auth/launch",
            json={"client_id": client_id, "patient": patient},
            headers={"Authorization": f"Bearer {portal_token}"},
        )
        if response.status_code != 200:
            raise UpstreamError(f"The launch was refused ({response.status_code})")
        launch = orjson.loads(response.content)["launch"]
        return await self.authorize(client_id, f"{self._origin}/apps/{client_id}/", scope, launch)

    async def transaction(self, token: str, bundle: dict[str, Any]) -> dict[str, Any]:
        """Post a transaction with a person's token; a refusal raises what the server said."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": FHIR_JSON}
        response = await self._http.post(f"{self._origin}/fhir", content=orjson.dumps(bundle), headers=headers)
        if response.status_code >= 400:
            raise error_of(response)
        return dict(orjson.loads(response.content))
