"""`/auth/break-glass`: emergency access to one patient's record, with a reason, for a limited time.

The patient's id travels in a cookie while the person signs in again; the reason in the form's body, never in a URL.
Whether there is such a patient is not said: the list shows what the person sees anyhow.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.cookies import clear_cookie, read_cookie, set_cookie
from foramen.identity.database import utc_now
from foramen.identity.done_notice import done_here, vouch
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session, form_is_ours
from foramen.identity.endpoints.record_reading import fhir_of, named_patient, patient_line
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.pages import error_page, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.people.sessions import Session
from foramen.identity.rights.break_glass import (
    BreakGlassCase,
    current_case,
    end,
    may_break_glass,
    own_case,
    reason_codes,
    record_refusal,
)
from foramen.identity.rights.break_glass_start import (
    BreakGlassRefusedError,
    Wanted,
    announce,
    new_ticket,
    start,
    ticket_id,
)
from foramen.kernel.errors import ConflictError, InteropError, NotFoundError

PAGE = f"{MOUNT}/break-glass"
_SIGN_IN = f"{MOUNT}/login?then=break-glass"
_COOKIE, _COOKIE_AGE_S = "foramen-break-glass", 900
_LOGICAL_ID = re.compile(r"(?:Patient/)?([A-Za-z0-9\-.]{1,64})")
_LISTED = 10
_TO_FILL_IN = timedelta(minutes=2)
"""The policy wants a sign-in of the last five minutes when the form is sent; who opens it late signs in first."""
_LATEST = timedelta(minutes=5) - _TO_FILL_IN
_STATUS = {"permission": 403, "factors": 403, "limit": 429, "none-in-force": 409, "patient": 400, "reason": 400}
_NO_TRACE = {"patient", "reason"}
"""Slips of the pen: nobody was refused anything by them."""


@dataclass(frozen=True, slots=True)
class _State:
    """Who asks, and what they have."""

    session: Session
    permitted: bool
    case: BreakGlassCase | None
    now: datetime

    @property
    def is_recent(self) -> bool:
        return (self.session.authenticated_at or self.session.signed_in_at) > self.now - _LATEST


@dataclass(frozen=True, slots=True)
class _Filled:
    """What the form shows filled in, and the patients listed; None where the record cannot be read."""

    patient: str = ""
    reason: str = ""
    text: str = ""
    name: str = ""
    patients: list[dict[str, Any]] | None = field(default_factory=list)


async def _state(env: Environment, request: Request) -> _State | None:
    def work(connection: Connection) -> _State | None:
        session, now = current_session(env, connection, request), utc_now()
        if session is None:
            return None
        account = session.account
        return _State(session, may_break_glass(connection, account), current_case(connection, account.name, now), now)

    return await env.database.run(work)


def _patient(text: str) -> str:
    """Return the logical id that was given, or nothing."""
    match = _LOGICAL_ID.fullmatch(text.strip())
    return match.group(1) if match else ""


def _one_patient(form: dict[str, str]) -> str:
    """Return the patient of a form; nothing where the list and the typed number name two."""
    chosen, typed = form.get("chosen", ""), form.get("patient", "")
    return _patient(chosen or typed) if _patient(chosen) == _patient(typed) or not (chosen and typed) else ""


def _sign_in(env: Environment, patient: str) -> Response:
    response = redirect(_SIGN_IN)
    if patient:
        set_cookie(env, response, _COOKIE, patient, _COOKIE_AGE_S)
    return response


async def break_glass_page(env: Environment, request: Request) -> Response:
    """Show what is in force, or the form."""
    given = query_parameters(request)
    patient = _patient(given.get("patient", "")) or _patient(read_cookie(env, request, _COOKIE) or "")
    state = await _state(env, request)
    if state is None or (state.permitted and state.case is None and not state.is_recent):
        return _sign_in(env, patient)
    if not state.permitted and state.case is None:
        return await _refused(env, request, state, ["permission"], _Filled())
    if state.case is not None:
        here = state.case.session_digest == state.session.session_digest
        digest = state.session.session_digest if here else None
        named = await named_patient(env, state.session.account, state.case.patient, session_digest=digest)
        return _page(env, request, state, _Filled(), named=named)
    patients = [] if patient else await _patients(env, state.session, "")
    response = _page(env, request, state, _Filled(patient=patient, patients=patients), done=done_here(env, request))
    if patient:
        set_cookie(env, response, _COOKIE, patient, _COOKIE_AGE_S)
    return response


async def break_glass(env: Environment, request: Request) -> Response:
    """Look for a patient by name, or start."""
    form = await form_parameters(request, lines=("text",))
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    patient = _one_patient(form)
    state = await _state(env, request)
    if state is None:
        return _sign_in(env, patient)
    name, text = form.get("name", "")[:100], form.get("text", "").strip()
    filled = _Filled(patient, form.get("reason", ""), text, name)
    if form.get("action") == "search" and state.permitted and state.case is None:
        patients = await _patients(env, state.session, name)
        return _page(env, request, state, _Filled(patient, filled.reason, text, name, patients))
    case_id = ticket_id(env.csrf_secret, state.session.session_digest, form.get("ticket", ""))
    if case_id is None:
        return error_page(env, request, 403, "csrf")
    return await _start(env, request, state, Wanted(case_id, patient, filled.reason, text), filled)


async def _start(env: Environment, request: Request, state: _State, wanted: Wanted, filled: _Filled) -> Response:
    def work(connection: Connection) -> BreakGlassCase | None:
        session = current_session(env, connection, request)
        if session is None or session.session_digest != state.session.session_digest:
            return None
        return start(connection, env.settings, session, wanted, address=client_address(request))

    try:
        case = await env.database.run(work)
    except ConflictError:
        return _page(env, request, state, filled, status=409, problem="used")
    except BreakGlassRefusedError as error:
        if error.rules == ["recent"]:
            return _sign_in(env, wanted.patient)
        return await _refused(env, request, state, error.rules, filled)
    if case is None:
        return _sign_in(env, wanted.patient)
    announce(case)
    env.audit.wake()
    env.break_glass_alerts.wake()
    response = redirect(PAGE)
    clear_cookie(env, response, _COOKIE)
    return response


async def end_break_glass(env: Environment, request: Request) -> Response:
    """End one's own emergency access."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")

    def work(connection: Connection) -> bool:
        session = current_session(env, connection, request)
        if session is None:
            return False
        try:
            case_id = uuid.UUID(form.get("case", ""))
        except ValueError:
            raise NotFoundError("There is no such emergency access") from None
        case = own_case(connection, session.account, case_id)
        end(connection, session.account, case.id, address=client_address(request))
        return True

    try:
        signed_in = await env.database.run(work)
    except NotFoundError:
        state = await _state(env, request)
        if state is None:
            return redirect(_SIGN_IN)
        return _page(env, request, state, _Filled(), status=404, problem="gone")
    env.audit.wake()
    return vouch(env, redirect(f"{PAGE}?done=ended" if signed_in else _SIGN_IN))


async def _patients(env: Environment, session: Session, name: str) -> list[dict[str, Any]] | None:
    """Return patients by name, with the person's own rights; None where they cannot be read now."""
    parameters = [("_count", str(_LISTED)), *([("name", name)] if name else [])]
    found: list[dict[str, Any]] = []
    try:
        async with fhir_of(env, session.account, session_digest=session.session_digest) as fhir:
            async for resource in fhir.search_pages("Patient", parameters):
                found.append(patient_line(resource))
                if len(found) == _LISTED:
                    break
    except InteropError:
        return None
    return found


async def _refused(env: Environment, request: Request, state: _State, rules: list[str], filled: _Filled) -> Response:
    """Say what stands against it; the refusal is audited unless it was only the form."""
    if not set(rules) <= _NO_TRACE:
        account, address = state.session.account, client_address(request)
        await env.database.run(lambda connection: record_refusal(connection, account, rules, address))
        env.audit.wake()
    problem = next((rule for rule in _STATUS if rule in rules), "permission")
    fresh = await _state(env, request) or state
    if problem in _NO_TRACE:
        filled = replace(filled, patients=await _patients(env, state.session, filled.name))
    return _page(env, request, fresh, filled, status=_STATUS[problem], problem=problem)


def _page(
    env: Environment,
    request: Request,
    state: _State,
    filled: _Filled,
    *,
    status: int = 200,
    problem: str = "",
    done: str = "",
    named: dict[str, Any] | None = None,
) -> Response:
    here = state.case is not None and state.case.session_digest == state.session.session_digest
    return render(
        env,
        request,
        "break_glass.html",
        status=status,
        account=state.session.account.name,
        permitted=state.permitted,
        case=state.case,
        here=here,
        named=named,
        problem=problem,
        done=done == "ended",
        filled=filled,
        reasons=reason_codes(),
        minutes=env.settings.break_glass_s // 60,
        ticket=new_ticket(env.csrf_secret, state.session.session_digest),
    )
