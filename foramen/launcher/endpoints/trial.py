"""`/apps/launcher/trials/{id}`, `/callback` and `/app`: be the app, one step after the other."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.environment import Environment
from foramen.identity.parameters import query_parameters
from foramen.identity.people.sessions import Session
from foramen.kernel.errors import InvalidRequestError
from foramen.launcher import faults, steps, trials
from foramen.launcher.endpoints.choose import Form, start_trial
from foramen.launcher.pages import message, redirect, render, words
from foramen.launcher.showing import cards_of, timeline
from foramen.launcher.trials import WAITING, Trial
from foramen.launcher.walk import ACTIONS, act, authorization, come_back, fault_of, leave, let_go


async def _find(env: Environment, request: Request, session: Session) -> Trial:
    trial_id = str(request.path_params["trial"])
    return await env.database.run(
        lambda connection: trials.find(connection, env.data_keys, session.session_digest, trial_id)
    )


async def _keep(env: Environment, session: Session, trial: Trial) -> Response:
    await env.database.run(lambda connection: trials.keep(connection, env.data_keys, session.session_digest, trial))
    return redirect(f"{steps.PATH}/trials/{trial.id}#now")


async def trial_page(env: Environment, request: Request, session: Session, form: Form) -> Response:
    """Show what was sent and received so far."""
    trial, said = await _find(env, request, session), words(env, request)
    ready = trial.phase == trials.READY and "authorization_endpoint" in trial.endpoints
    return render(
        env,
        request,
        "trial.html",
        trial=trial,
        fault=fault_of(trial),
        cards=cards_of(trial, said),
        marks=timeline(trial),
        actions=ACTIONS,
        upcoming=authorization(trial) if ready else None,
    )


async def step(env: Environment, request: Request, session: Session, form: Form) -> Response:
    """Do the step that the form names."""
    trial = await _find(env, request, session)
    action = form.get("step", "")
    if action == "end":
        await let_go(env, trial)
        await env.database.run(lambda connection: trials.end(connection, session.session_digest, trial.id))
        return redirect(f"{steps.PATH}/")
    if action == "authorize":
        location = await leave(env, trial)
        kept = await _keep(env, session, trial)
        return redirect(location) if location else kept
    await act(env, trial, action)
    return await _keep(env, session, trial)


async def callback(env: Environment, request: Request, session: Session, form: Form) -> Response:
    """Take the answer of the authorization endpoint: of a trial of this very session, found by its `state`."""
    answer = query_parameters(request)
    digest = session.session_digest
    trial = await env.database.run(
        lambda connection: trials.find_by_state(connection, env.data_keys, digest, answer.get("state", ""))
    )
    if trial is None and "state" not in answer:
        trial = await _without_state(env, session)
    if trial is None or trial.phase != WAITING:
        return message(env, request, 400, "unknown_state")
    await come_back(env, trial, f"{trial.redirect_uri}?{request.url.query}", answer)
    return await _keep(env, session, trial)


async def _without_state(env: Environment, session: Session) -> Trial | None:
    """Return the trial whose fault is that it sent no `state`: its answer is shown, and refused like any other's."""
    found = await env.database.run(lambda connection: trials.mine(connection, env.data_keys, session.session_digest))
    return next((trial for trial in found if trial.fault == faults.NO_STATE and trial.phase == WAITING), None)


async def app_page(env: Environment, request: Request, session: Session, form: Form) -> Response:
    """Be launched: an EHR opens this page with `iss` and `launch`; only our own server is taken as `iss`."""
    asked = query_parameters(request)
    launch, iss = asked.get("launch", ""), asked.get("iss", "")
    known = iss.rstrip("/") == env.settings.fhir_base
    return render(
        env,
        request,
        "app.html",
        status=200 if known else 400,
        known=known,
        launch=launch[:200],
        scope=steps.EHR_SCOPE if launch else steps.DEFAULT_SCOPE,
        iss=env.settings.fhir_base,
    )


async def app(env: Environment, request: Request, session: Session, form: Form) -> Response:
    """Start the walk with the launch that an EHR has handed over."""
    if len(form.get("launch", "")) > 200:
        raise InvalidRequestError("The launch is too long")
    return await start_trial(env, request, session, form, form.get("launch", ""))
