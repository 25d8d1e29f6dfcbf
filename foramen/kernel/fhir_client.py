"""FHIR and DICOMweb over HTTP with a backend-services token: how our own rooms reach the record, as any outsider does.

https://hl7.org/fhir/smart-app-launch/STU2.2/backend-services.html
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx
import orjson
from joserfc import jwt
from joserfc.jwk import ECKey

from foramen.kernel.errors import (
    ConflictError,
    DeletedError,
    ForbiddenError,
    InteropError,
    InvalidRequestError,
    InvalidResourceError,
    NotAuthenticatedError,
    NotFoundError,
    PreconditionError,
    UpstreamError,
)
from foramen.kernel.identifiers import new_trace_id
from foramen.kernel.outcome import FHIR_JSON

_ERRORS: dict[int, type[InteropError]] = {
    400: InvalidRequestError,
    401: NotAuthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: DeletedError,
    412: PreconditionError,
    422: InvalidResourceError,
}
_EARLY_S = 30.0


class BackendServiceAuth(httpx.Auth):
    """Fetches and renews an access token by `client_credentials` with a signed assertion (private_key_jwt)."""

    requires_response_body = True

    def __init__(self, client_id: str, key: ECKey, scope: str, token_endpoint: str, audience: str) -> None:
        self._client_id, self._key, self._scope = client_id, key, scope
        self._endpoint, self._audience = token_endpoint, audience
        self._token, self._expires = "", 0.0

    def _assertion(self) -> str:
        now = int(time.time())
        algorithm = "ES384" if self._key.curve_name == "P-384" else "ES256"
        header = {"alg": algorithm, "kid": str(self._key.kid), "typ": "JWT"}
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._audience,
            "exp": now + 240,
            "iat": now,
            "jti": new_trace_id(),
        }
        return jwt.encode(header, claims, self._key, algorithms=[algorithm])

    async def async_auth_flow(self, request: httpx.Request) -> Any:
        """Send the request with a fresh token; renew once when the server refuses it."""
        if time.time() > self._expires - _EARLY_S:
            answer = yield self._token_request()
            await answer.aread()  # httpx reads bodies by itself only for flows that are not asynchronous
            self._accept(answer)
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code == 401:
            answer = yield self._token_request()
            await answer.aread()
            self._accept(answer)
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request

    def _token_request(self) -> httpx.Request:
        form = {
            "grant_type": "client_credentials",
            "scope": self._scope,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self._assertion(),
        }
        return httpx.Request("POST", self._endpoint, data=form)

    def _accept(self, response: httpx.Response) -> None:
        if response.status_code != 200:
            raise UpstreamError(f"The authorization server refused the backend service ({response.status_code})")
        body = orjson.loads(response.content)
        self._token, self._expires = body["access_token"], time.time() + float(body["expires_in"])


def error_of(response: httpx.Response) -> InteropError:
    """Turn an error answer back into the error it was rendered from."""
    try:
        first = orjson.loads(response.content)["issue"][0]
        text, code = str(first.get("diagnostics", "")), str(first.get("code", ""))
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        text, code = "", ""
    kind = _ERRORS.get(response.status_code, UpstreamError)
    return kind(text or f"HTTP {response.status_code}", issue_code=code or None)


def next_cursor(bundle: dict[str, Any]) -> str | None:
    """Return the `_cursor` of the page after this one, to be sent with the same search; None on the last page."""
    for link in bundle.get("link", []):
        if link.get("relation") == "next":
            cursors = parse_qs(urlsplit(link["url"]).query).get("_cursor", [])
            return cursors[0] if cursors else None
    return None


class FhirClient:
    """A small FHIR R4 client: read, search with paging, update with If-Match, transaction."""

    def __init__(self, base_url: str, http: httpx.AsyncClient) -> None:
        self._base = base_url.rstrip("/")
        self._http = http

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Accept": FHIR_JSON, **options.pop("headers", {})}
        url = path if path.startswith("http") else f"{self._base}/{path}".rstrip("/")
        try:
            response = await self._http.request(method, url, headers=headers, **options)
        except httpx.HTTPError as exc:
            raise UpstreamError("The FHIR server does not answer") from exc
        # A redirect is no answer either: a transaction that was not taken must not look like one that was.
        if response.status_code >= 300 and not (response.status_code == 304 and "If-None-Match" in headers):
            raise error_of(response)
        return response

    async def read(self, reference: str) -> dict[str, Any]:
        """Read `Type/id`."""
        return self._body(await self._request("GET", reference))

    async def read_changed(self, path: str, tag: str | None) -> tuple[dict[str, Any], str] | None:
        """Return what stands at a path and its ETag; None: nothing but what had this tag (RFC 9110 §13.1.2)."""
        response = await self._request("GET", path, headers={"If-None-Match": tag} if tag else {})
        return None if response.status_code == 304 else (self._body(response), response.headers.get("etag", ""))

    async def search(self, resource_type: str, parameters: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return all matching resources, following `next` links."""
        return [entry async for entry in self.search_pages(resource_type, parameters)]

    async def page(self, resource_type: str, parameters: list[tuple[str, str]]) -> dict[str, Any]:
        """Return one page of a search, a Bundle; `next_cursor` names the following one."""
        return self._body(await self._request("GET", resource_type, params=parameters))

    async def search_pages(
        self, resource_type: str, parameters: list[tuple[str, str]]
    ) -> AsyncIterator[dict[str, Any]]:
        """Iterate over matching resources page by page."""
        bundle = self._body(await self._request("GET", resource_type, params=parameters))
        while True:
            for entry in bundle.get("entry", []):
                yield entry["resource"]
            following = next((link["url"] for link in bundle.get("link", []) if link["relation"] == "next"), None)
            if following is None:
                return
            bundle = self._body(await self._request("GET", following))

    async def update(self, resource: dict[str, Any], *, if_match: str | None = None) -> dict[str, Any]:
        """Update a resource; with `if_match` (a version id) only when nobody changed it in between (412)."""
        headers = {"Content-Type": FHIR_JSON}
        if if_match is not None:
            headers["If-Match"] = f'W/"{if_match}"'
        path = f"{resource['resourceType']}/{resource['id']}"
        return self._body(await self._request("PUT", path, content=orjson.dumps(resource), headers=headers))

    async def create(self, resource: dict[str, Any], *, if_none_exist: str | None = None) -> dict[str, Any]:
        """Create a resource; with `if_none_exist` (a search query) only when no match exists yet."""
        headers = {"Content-Type": FHIR_JSON}
        if if_none_exist is not None:
            headers["If-None-Exist"] = if_none_exist
        path = resource["resourceType"]
        return self._body(await self._request("POST", path, content=orjson.dumps(resource), headers=headers))

    async def add_tag(self, reference: str, coding: dict[str, str]) -> None:
        """Add a tag to a resource without touching its content (`$meta-add`); harmless to repeat."""
        meta = {"name": "meta", "valueMeta": {"tag": [coding]}}
        await self._request("POST", f"{reference}/$meta-add", json={"resourceType": "Parameters", "parameter": [meta]})

    async def transaction(self, bundle: dict[str, Any]) -> dict[str, Any]:
        """Post a transaction or batch Bundle; all or nothing for a transaction."""
        headers = {"Content-Type": FHIR_JSON}
        return self._body(await self._request("POST", "", content=orjson.dumps(bundle), headers=headers))

    @staticmethod
    def _body(response: httpx.Response) -> dict[str, Any]:
        return orjson.loads(response.content) if response.content else {}
