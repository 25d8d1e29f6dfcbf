"""The record and the gateway over HTTP, with the signed-in person's own rights and nothing more.

Each way opened asks the rights anew; its token lives a minute and never leaves this process. Access, audit and limits
are those of `/fhir` and `/dicom-web`, as for any outside app.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from sqlalchemy import Connection

from foramen.identity.database import utc_now
from foramen.identity.oauth.scopes import grant
from foramen.identity.rights import break_glass_tokens as break_glass
from foramen.identity.rights.break_glass import BreakGlassCase
from foramen.identity.rights.permissions import Rights, rights_of
from foramen.image_database.page import Call
from foramen.kernel.errors import NotFoundError, UpstreamError
from foramen.kernel.fhir_client import FhirClient, error_of
from foramen.kernel.outcome import FHIR_JSON

CLIENT_ID = "foramen-images"
_WANTED = "user/ImagingStudy.crus user/Patient.rs"
_LIFETIME_S = 60
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class Record:
    """The two doors: FHIR, and DICOMweb."""

    fhir: FhirClient
    _http: httpx.AsyncClient
    _origin: str

    async def dicom(self, path: str, *, accept: str, params: list[tuple[str, str]] | None = None) -> httpx.Response:
        """GET below `/dicom-web`.

        Raises
        ------
        InteropError
            What the gateway refused, or that it does not answer.
        """
        return await self._send("GET", f"/dicom-web{path}", params=params, headers={"Accept": accept})

    async def found(self, path: str, params: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """Search (QIDO-RS) with every attribute the index holds; a 204 is an empty list."""
        asked = [*params, ("includefield", "all")]
        response = await self.dicom(path, accept="application/dicom+json", params=asked)
        return list(orjson.loads(response.content)) if response.content else []

    async def store(self, body: bytes, content_type: str) -> httpx.Response:
        """POST instances (STOW-RS); 409 is an answer, too: its body says why each was refused."""
        headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
        return await self._send("POST", "/dicom-web/studies", content=body, headers=headers, answers=(200, 202, 409))

    async def rejections(self, params: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """List what is rejected, as far as this person sees the studies."""
        response = await self.dicom("/rejections", accept="application/json", params=params)
        return list(orjson.loads(response.content))

    async def drift(self) -> dict[str, Any]:
        """Return what is out of line between archive, index and record; for who may administer the installation."""
        return dict(orjson.loads((await self.dicom("/drift", accept="application/json")).content))

    async def change(self, path: str, content: dict[str, Any]) -> None:
        """POST JSON below `/dicom-web`."""
        headers = {"Content-Type": "application/json"}
        await self._send("POST", f"/dicom-web{path}", content=orjson.dumps(content), headers=headers)

    async def operation(self, path: str, resource: dict[str, Any]) -> dict[str, Any]:
        """POST a FHIR operation."""
        headers = {"Content-Type": FHIR_JSON, "Accept": FHIR_JSON}
        response = await self._send("POST", f"/fhir/{path}", content=orjson.dumps(resource), headers=headers)
        return dict(orjson.loads(response.content)) if response.content else {}

    async def _send(self, method: str, path: str, answers: tuple[int, ...] = (), **options: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, f"{self._origin}{path}", **options)
        except httpx.HTTPError as exc:
            raise UpstreamError("The image archive or the record does not answer") from exc
        if response.status_code >= 300 and response.status_code not in answers:
            raise error_of(response)
        return response


@asynccontextmanager
async def record_of(call: Call, wanted: str = _WANTED) -> AsyncIterator[Record]:
    """Open the record as this person may, now: with what of the scopes `wanted` they have."""
    env, account = call.env, call.account

    def work(connection: Connection) -> tuple[Rights, BreakGlassCase | None]:
        rights = rights_of(connection, account)
        emergency = break_glass.carried(connection, account, rights, call.session.session_digest, None, utc_now())
        return rights, emergency

    rights, emergency = await env.database.run(work)
    now = utc_now()
    administrator = rights.maintains_record and call.session.has_second_factor
    lifetime_s = rights.lifetime_s(now, _LIFETIME_S)
    token = env.signer.access_token(
        subject=account.name,
        client_id=CLIENT_ID,
        scope=grant(wanted, wanted, rights.scopes, ("user",), administrator=administrator),
        now=now,
        lifetime_s=break_glass.lifetime_s(emergency, now, lifetime_s) if emergency else lifetime_s,
        fhir_user=account.fhir_user,
        institution=account.institution,
        lenders=rights.lenders,
        break_glass=break_glass.claim(emergency) if emergency else None,
        every_institution=rights.manages_institutions,
    )
    http = httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token.text}"}, timeout=_TIMEOUT, transport=env.transport, trust_env=False
    )
    async with http:
        origin = env.settings.internal_origin
        yield Record(FhirClient(f"{origin}/fhir", http), http, origin)


async def imaging_study(record: Record, study_uid: str) -> dict[str, Any]:
    """Return the ImagingStudy of a study.

    Raises
    ------
    NotFoundError
        There is none in reach: unknown, not permitted, or its patient is not known yet.
    """
    parameters = [("identifier", f"urn:dicom:uid|urn:oid:{study_uid}"), ("_count", "1")]
    bundle = await record.fhir.page("ImagingStudy", parameters)
    found = [entry["resource"] for entry in bundle.get("entry", []) if "resource" in entry]
    if not found:
        raise NotFoundError("There is no such study in the record")
    return dict(found[0])
