"""`/auth/authorize` and `/auth/continue`: validate the request, then send the browser one step further.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#obtain-authorization-code (GET and POST)
"""

from __future__ import annotations

from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from foramen.identity.cookies import SESSION, read_cookie
from foramen.identity.database import utc_now
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.endpoints.par import begin_pushed
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.oauth.authorization_flow import Progress, Step, proceed
from foramen.identity.oauth.authorization_requests import find_request, save_request
from foramen.identity.oauth.checked_issuing import AUTHORIZE
from foramen.identity.oauth.first_reading import opening_asked, read_opening
from foramen.identity.pages import SECURITY_HEADERS, error_page
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.people.second_factor import second_factor_roles


async def authorize(env: Environment, request: Request) -> Response:
    """Start an authorization."""
    parameters = await form_parameters(request) if request.method == "POST" else query_parameters(request)
    address, cookie = client_address(request), read_cookie(env, request, SESSION)
    now, idle_s, client_id = utc_now(), env.settings.session_idle_s, parameters.get("client_id", "")

    def work(connection: Connection) -> Progress:
        opening = read_opening(connection, client_id, cookie, now, idle_s, second_factor_roles(env.settings))
        env.server(connection).know_client(client_id, opening.client)
        begun = begin_pushed(env, connection, parameters, address)
        if isinstance(begun, Progress):
            return begun
        request_id, pending = begun
        opening.note_seen(connection, now, idle_s)
        session = opening.session
        progress = proceed(env, connection, request_id, pending, session, address)
        if progress.step not in (Step.REDIRECT, Step.ERROR):  # A page comes first: the request waits for its form.
            save_request(connection, pending)
        return progress

    asked = opening_asked(client_id, cookie, now, idle_s)
    return to_response(env, request, await env.database.run_checked(work, AUTHORIZE, asked))


async def continue_(env: Environment, request: Request) -> Response:
    """Go on with a request after one of its pages."""
    request_id = query_parameters(request).get("request", "")
    progress = await env.database.run(lambda connection: advance(env, connection, request, request_id))
    return to_response(env, request, progress)


def advance(
    env: Environment, connection: Connection, request: Request, request_id: str, *, denied: bool = False
) -> Progress:
    """Do the next step of a stored request."""
    pending = find_request(connection, request_id)
    if pending is None:
        return Progress(Step.ERROR)
    session = current_session(env, connection, request, lock=True)
    return proceed(env, connection, request_id, pending, session, client_address(request), denied=denied)


def to_response(env: Environment, request: Request, progress: Progress) -> Response:
    """Turn progress into a redirect or an error page."""
    env.audit.wake()
    if progress.step is Step.ERROR:
        if not progress.detail:
            return error_page(env, request, 400, "expired")
        if progress.detail.startswith("unauthorized_client"):
            return error_page(env, request, 403, "client_not_approved")
        unknown = progress.detail.startswith("invalid_client") or "redirect_uri" in progress.detail
        return error_page(env, request, 400, "unknown_client" if unknown else "invalid_request", progress.detail)
    if progress.step is Step.REDIRECT:
        return redirect(progress.location)
    return redirect(f"{MOUNT}/{progress.step.value}?{urlencode({'request': progress.request_id})}")


def redirect(location: str) -> Response:
    """Redirect with GET (RFC 9700 §4.12: 303, never 307, after a form)."""
    return RedirectResponse(location, status_code=303, headers=SECURITY_HEADERS)
