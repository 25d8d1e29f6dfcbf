"""`/auth/patient`: choose the patient of a standalone launch; the list is read with the user's own rights.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#launch-context-scopes
"""

from __future__ import annotations

import re
from typing import Any

import httpx
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.accounts import Account
from foramen.identity.authorization_flow import Progress, Step, proceed
from foramen.identity.authorization_requests import PendingRequest, find_request, settle_patient
from foramen.identity.database import utc_now
from foramen.identity.endpoints.authorize import advance, to_response
from foramen.identity.endpoints.current_session import current_session, form_is_ours
from foramen.identity.environment import Environment
from foramen.identity.pages import app_name, error_page, page_language, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.roles import role_scopes
from foramen.identity.scopes import grant
from foramen.identity.sessions import Session
from foramen.kernel.errors import NotFoundError, UpstreamError
from foramen.kernel.fhir_client import FhirClient

_CLIENT_ID = "foramen-identity"
_SCOPE = "user/Patient.rs"
_PAGE = 50
_LOGICAL_ID = re.compile(r"^[A-Za-z0-9\-.]{1,64}$")


async def patient_page(env: Environment, request: Request) -> Response:
    """Show the first patients."""
    return await _page(env, request, query_parameters(request).get("request", ""), "")


async def patient(env: Environment, request: Request) -> Response:
    """Search again, or take the choice. The name travels in the form's body, never in a URL."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    request_id, chosen = form.get("request", ""), form.get("patient", "")
    if not chosen:
        return await _page(env, request, request_id, form.get("name", "")[:100])
    progress, _, session = await _state(env, request, request_id)
    if progress.step is not Step.PATIENT or session is None:
        return to_response(env, request, progress)
    try:
        if not _LOGICAL_ID.match(chosen):
            raise NotFoundError("No such patient")
        async with _fhir(env, session.account) as fhir:
            await fhir.read(f"Patient/{chosen}")
    except NotFoundError:
        return await _page(env, request, request_id, "")
    except UpstreamError:
        return error_page(env, request, 503, "patients_unavailable")

    def work(connection: Connection) -> Progress:
        pending, now_signed_in = find_request(connection, request_id), current_session(env, connection, request)
        if pending is None or now_signed_in is None or now_signed_in.session_digest != session.session_digest:
            return Progress(Step.ERROR)
        settle_patient(connection, pending, chosen)
        settled = find_request(connection, request_id)
        if settled is None:
            return Progress(Step.ERROR)
        return proceed(env, connection, request_id, settled, now_signed_in, client_address(request))

    return to_response(env, request, await env.database.run(work))


async def _state(
    env: Environment, request: Request, request_id: str
) -> tuple[Progress, PendingRequest | None, Session | None]:
    def work(connection: Connection) -> tuple[Progress, PendingRequest | None, Session | None]:
        progress = advance(env, connection, request, request_id)
        return progress, find_request(connection, request_id), current_session(env, connection, request)

    return await env.database.run(work)


def _fhir(env: Environment, account: Account) -> FhirClient:
    """Return a client that reads patients as this person may."""
    scope = grant(_SCOPE, _SCOPE, role_scopes(account.role), ("user",))
    token = env.signer.access_token(
        subject=account.name,
        client_id=_CLIENT_ID,
        scope=scope,
        now=utc_now(),
        lifetime_s=60,
        fhir_user=account.fhir_user,
        institution=account.institution,
    )
    http = httpx.AsyncClient(
        headers={"Authorization": f"Bearer {token.text}"}, timeout=10, transport=env.transport, trust_env=False
    )
    return FhirClient(f"{env.settings.internal_origin}/fhir", http)


async def _page(env: Environment, request: Request, request_id: str, name: str) -> Response:
    progress, pending, session = await _state(env, request, request_id)
    if progress.step is not Step.PATIENT or pending is None or session is None:
        return to_response(env, request, progress)
    parameters = [("_count", str(_PAGE)), *([("name", name)] if name else [])]
    patients = []
    try:
        async with _fhir(env, session.account) as fhir:
            async for resource in fhir.search_pages("Patient", parameters):
                patients.append(_line(resource))
                if len(patients) == _PAGE:
                    break
    except UpstreamError:
        return error_page(env, request, 503, "patients_unavailable")
    ui_locales = pending.parameters.get("ui_locales", "")
    return render(
        env,
        request,
        "patient_picker.html",
        redirect_uri=pending.parameters["redirect_uri"],
        ui_locales=ui_locales,
        app=app_name(progress.client, page_language(env, request, ui_locales)),
        patients=patients,
        name=name,
        request_id=request_id,
    )


def _line(resource: dict[str, Any]) -> dict[str, Any]:
    """What one line of the picker shows of a Patient."""
    name = (resource.get("name") or [{}])[0]
    shown = name.get("text") or " ".join([name.get("family", ""), *name.get("given", [])]).strip()
    tags = [tag.get("code") for tag in resource.get("meta", {}).get("tag", [])]
    return {
        "id": resource["id"],
        "name": shown,
        "birth_date": resource.get("birthDate", ""),
        "synthetic": "SYNTHETIC" in tags,
    }
