"""`/auth/patient`: choose the patient of a standalone launch; the list is read with the user's own rights.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#launch-context-scopes
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.endpoints.authorize import to_response
from foramen.identity.endpoints.context_picking import state_of, take_choice
from foramen.identity.endpoints.current_session import form_is_ours
from foramen.identity.endpoints.record_reading import fhir_of, patient_line
from foramen.identity.environment import Environment
from foramen.identity.oauth.authorization_flow import Step
from foramen.identity.oauth.authorization_requests import settle_patient
from foramen.identity.pages import app_name, error_page, page_language, render
from foramen.identity.parameters import form_parameters, query_parameters
from foramen.kernel.errors import NotFoundError, UpstreamError

_PAGE = 50
_LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


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
    progress, _, session = await state_of(env, request, request_id)
    if progress.step is not Step.PATIENT or session is None:
        return to_response(env, request, progress)
    try:
        if not _LOGICAL_ID.fullmatch(chosen):
            raise NotFoundError("No such patient")
        async with fhir_of(env, session.account, session_digest=session.session_digest) as fhir:
            await fhir.read(f"Patient/{chosen}")
    except NotFoundError:
        return await _page(env, request, request_id, "")
    except UpstreamError:
        return error_page(env, request, 503, "patients_unavailable")

    return await take_choice(env, request, request_id, session, settle_patient, chosen)


async def _page(env: Environment, request: Request, request_id: str, name: str) -> Response:
    progress, pending, session = await state_of(env, request, request_id)
    if progress.step is not Step.PATIENT or pending is None or session is None:
        return to_response(env, request, progress)
    parameters = [("_count", str(_PAGE)), *([("name", name)] if name else [])]
    patients = []
    try:
        async with fhir_of(env, session.account, session_digest=session.session_digest) as fhir:
            async for resource in fhir.search_pages("Patient", parameters):
                patients.append(patient_line(resource))
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
