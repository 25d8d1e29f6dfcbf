"""`/auth/encounter`: choose the encounter of a launch, or go on without one; read with the user's own rights.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#requesting-context-with-scopes
"""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.endpoints.authorize import to_response
from foramen.identity.endpoints.context_picking import state_of, take_choice
from foramen.identity.endpoints.current_session import form_is_ours
from foramen.identity.endpoints.record_reading import fhir_of, is_synthetic, named_patient
from foramen.identity.environment import Environment
from foramen.identity.oauth.authorization_flow import Step
from foramen.identity.oauth.authorization_requests import settle_encounter
from foramen.identity.pages import app_name, error_page, page_language, render
from foramen.identity.parameters import form_parameters, query_parameters
from foramen.identity.people.sessions import Session
from foramen.kernel.errors import NotFoundError, UpstreamError

_PAGE = 50
_LOGICAL_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


async def encounter_page(env: Environment, request: Request) -> Response:
    """Show the patient's encounters, newest first."""
    return await _page(env, request, query_parameters(request).get("request", ""))


async def encounter(env: Environment, request: Request) -> Response:
    """Take the choice; one that is not this patient's shows the list again."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    request_id = form.get("request", "")
    chosen = "" if form.get("none") else form.get("encounter", "")
    progress, _, session = await state_of(env, request, request_id)
    if progress.step is not Step.ENCOUNTER or session is None:
        return to_response(env, request, progress)
    try:
        if not form.get("none") and not await _is_of_patient(env, session, chosen, progress.patient):
            return await _page(env, request, request_id)
    except UpstreamError:
        return error_page(env, request, 503, "patients_unavailable")

    return await take_choice(env, request, request_id, session, settle_encounter, chosen)


async def _is_of_patient(env: Environment, session: Session, chosen: str, patient: str | None) -> bool:
    if patient is None or not _LOGICAL_ID.fullmatch(chosen):
        return False
    try:
        async with fhir_of(env, session.account, session_digest=session.session_digest) as fhir:
            found = await fhir.read(f"Encounter/{chosen}")
    except NotFoundError:
        return False
    reference = str((found.get("subject") or {}).get("reference", ""))
    return reference == f"Patient/{patient}" or reference.endswith(f"/Patient/{patient}")


async def _page(env: Environment, request: Request, request_id: str) -> Response:
    progress, pending, session = await state_of(env, request, request_id)
    if progress.step is not Step.ENCOUNTER or pending is None or session is None:
        return to_response(env, request, progress)
    encounters = []
    try:
        parameters = [("patient", str(progress.patient)), ("_sort", "-date"), ("_count", str(_PAGE))]
        async with fhir_of(env, session.account, session_digest=session.session_digest) as fhir:
            async for resource in fhir.search_pages("Encounter", parameters):
                encounters.append(_line(resource))
                if len(encounters) == _PAGE:
                    break
    except UpstreamError:
        return error_page(env, request, 503, "patients_unavailable")
    ui_locales = pending.parameters.get("ui_locales", "")
    return render(
        env,
        request,
        "encounter_picker.html",
        redirect_uri=pending.parameters["redirect_uri"],
        ui_locales=ui_locales,
        app=app_name(progress.client, page_language(env, request, ui_locales)),
        patient=await named_patient(env, session.account, progress.patient, session_digest=session.session_digest),
        encounters=encounters,
        request_id=request_id,
    )


def _line(resource: dict[str, Any]) -> dict[str, Any]:
    """Return what one line shows of an Encounter."""
    kinds = [item.get("text") or _display(item) for item in resource.get("type", ())]
    period = resource.get("period") or {}
    ends = [str(period.get(name, ""))[:10] for name in ("start", "end")]
    return {
        "id": resource["id"],
        "what": next((kind for kind in kinds if kind), "") or _class(resource),
        "period": " – ".join(dict.fromkeys(end for end in ends if end)),
        "status": resource.get("status", ""),
        "synthetic": is_synthetic(resource),
    }


def _display(concept: dict[str, Any]) -> str:
    coding = (concept.get("coding") or [{}])[0]
    return str(coding.get("display") or coding.get("code", ""))


def _class(resource: dict[str, Any]) -> str:
    found = resource.get("class") or {}
    return str(found.get("display") or found.get("code") or resource["id"])
