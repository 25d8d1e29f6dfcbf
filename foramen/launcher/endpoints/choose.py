"""`/apps/launcher/`: choose person, patient, encounter, app and kind of launch; open the app, or be the app."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.environment import Environment
from foramen.identity.oauth.clients import Client
from foramen.identity.oauth.launches import LAUNCH_LIFETIME
from foramen.identity.pages import app_name, page_language
from foramen.identity.people.sessions import Session
from foramen.identity.rights.permissions import rights_of
from foramen.identity.security_event import SUCCESS
from foramen.kernel.errors import InvalidRequestError
from foramen.launcher import demonstration, faults, steps, trials
from foramen.launcher.admission import note
from foramen.launcher.faults import FAULTS
from foramen.launcher.launching import checked_launch, let_expire, make_launch
from foramen.launcher.pages import redirect, render
from foramen.launcher.picks import Picks, apps, encounters, logical_id, patients, services
from foramen.launcher.trials import Trial
from foramen.launcher.walk import discover

EHR, STANDALONE, BACKEND = "ehr", "standalone", "backend"
TYPES = (EHR, STANDALONE, BACKEND)
_LONGEST_SCOPE = 2000
_FIELDS = (
    *("name", "patient", "encounter", "app", "type", "intent", "smart_style_url", "need_patient_banner"),
    *("scope", "consent", "fault"),
)
Form = dict[str, str]


async def choose_page(env: Environment, request: Request, session: Session, form: Form) -> Response:
    """Show the form, as it is when nothing is chosen yet."""
    defaults = {"app": steps.CLIENT_ID, "type": EHR, "need_patient_banner": "true", "consent": "true"}
    return await _page(env, request, session, {**defaults, "scope": steps.EHR_SCOPE})


async def choose(env: Environment, request: Request, session: Session, form: Form) -> Response:
    """Do what the pressed button says; a choice that is not possible shows the form again, with the reason."""
    try:
        if form.get("do") in ("open", "show"):
            return await _go(env, request, session, form)
    except InvalidRequestError as error:
        return await _page(env, request, session, form, problem=error.message, status=400)
    return await _page(env, request, session, form)


async def _go(env: Environment, request: Request, session: Session, form: Form) -> Response:
    known = await env.database.run(apps)
    app = next((client for client in known if client.client_id == form.get("app")), None)
    kind = form.get("type")
    if kind == BACKEND:
        return await _backend(env, request)
    if app is None:
        raise InvalidRequestError("Choose an app")
    if kind not in TYPES:
        raise InvalidRequestError("Choose a kind of launch")
    if app.client_id == steps.CLIENT_ID:
        return await _be_the_app(env, request, session, form, ehr=kind == EHR)
    if kind == STANDALONE:
        return _launched(env, request, app, None)
    launch = await checked_launch(env, session.account, app.client_id, form)
    token = await env.database.run(lambda connection: make_launch(connection, request, session.account, launch))
    if form["do"] == "open" and app.launch_url:
        return redirect(steps.launch_location(app.launch_url, env.settings.fhir_base, token))
    return _launched(env, request, app, token)


def _launched(env: Environment, request: Request, app: Client, token: str | None) -> Response:
    location = steps.launch_location(app.launch_url, env.settings.fhir_base, token) if app.launch_url else ""
    return render(
        env,
        request,
        "launched.html",
        app=app,
        name=app_name(app, page_language(env, request)),
        iss=env.settings.fhir_base,
        launch=token,
        location=location if token else app.launch_url or "",
        minutes=int(LAUNCH_LIFETIME.total_seconds() // 60),
        discovery=steps.discovery(env.settings.fhir_base).url,
    )


async def _be_the_app(env: Environment, request: Request, session: Session, form: Form, *, ehr: bool) -> Response:
    fault = FAULTS.get(form.get("fault", ""))
    old = fault is not None and fault.name == faults.OLD_LAUNCH
    launch = await checked_launch(env, session.account, steps.CLIENT_ID, form) if ehr else None
    if old and launch is None:
        raise InvalidRequestError("An expired launch needs an EHR launch")

    def made(connection: Connection) -> str:
        if launch is None:
            return ""
        token = make_launch(connection, request, session.account, launch)
        if old:
            let_expire(connection, token)
        return token

    return await start_trial(env, request, session, form, await env.database.run(made))


async def start_trial(env: Environment, request: Request, session: Session, form: Form, launch: str) -> Response:
    """Start a walk through the code flow, and open its page.

    Raises
    ------
    InvalidRequestError
        The scope is too long or empty.
    """
    scope = " ".join(form.get("scope", "").split())
    if not 0 < len(scope) <= _LONGEST_SCOPE or not scope.isascii() or not scope.isprintable():
        raise InvalidRequestError("scope is needed, at most 2000 characters of ASCII")
    trial = Trial(
        id=secrets.token_urlsafe(16),
        scope=scope,
        redirect_uri=f"{env.settings.origin}{steps.CALLBACK}",
        aud=env.settings.fhir_base,
        launch=launch,
        fault=form.get("fault", "") if form.get("fault", "") in FAULTS else "",
        consent=form.get("consent") == "true",
    )
    await discover(env, trial)

    def work(connection: Connection) -> None:
        trials.start(connection, env.data_keys, session.session_digest, trial)
        note(connection, request, session.account, SUCCESS, f"trial {trial.fault or 'without fault'}")

    await env.database.run(work)
    return redirect(f"{steps.PATH}/trials/{trial.id}")


async def _backend(env: Environment, request: Request) -> Response:
    known = await env.database.run(services)
    return render(env, request, "backend.html", services=known, origin=env.settings.origin)


async def _page(
    env: Environment, request: Request, session: Session, form: Form, *, problem: str = "", status: int = 200
) -> Response:
    patient, listed = form.get("patient", ""), Picks("")
    if patient:
        try:
            listed = await encounters(env, session.account, logical_id(patient, "Patient"))
        except InvalidRequestError as error:
            problem, status = problem or error.message, 400
    found = await patients(env, session.account, form.get("name", "")[:100])

    def work(connection: Connection) -> dict[str, Any]:
        return {
            "apps": apps(connection),
            "rights": rights_of(connection, session.account),
            "trials": trials.mine(connection, env.data_keys, session.session_digest),
        }

    values = await env.database.run(work)
    language = page_language(env, request)
    launch_urls = [app.launch_url for app in values["apps"] if app.launch_url]
    return render(
        env,
        request,
        "launcher.html",
        status=status,
        form_targets=launch_urls,
        problem=problem,
        form={**dict.fromkeys(_FIELDS, ""), **form},
        account=session.account,
        patients=found,
        encounters=listed,
        names={app.client_id: app_name(app, language) for app in values["apps"]},
        own=steps.CLIENT_ID,
        types=TYPES,
        faults=FAULTS,
        demo=demonstration.ACCOUNTS if env.settings.demo else (),
        demo_password=demonstration.PASSWORD,
        standalone_scope=steps.DEFAULT_SCOPE,
        ehr_scope=steps.EHR_SCOPE,
        fhir_base=env.settings.fhir_base,
        **values,
    )
