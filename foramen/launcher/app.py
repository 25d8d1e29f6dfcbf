"""Composition root of the launcher, mounted at `/apps/launcher` where `FORAMEN_LAUNCHER` is on.

Every route is for a signed-in account with the permission `try-launches`; every form carries its token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from foramen.identity.app import IdentityService
from foramen.identity.endpoints.current_session import form_is_ours
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.forwarded import Forwarded, parse_proxies
from foramen.identity.parameters import form_parameters
from foramen.identity.people.sessions import Session
from foramen.kernel.errors import InteropError, UpstreamError
from foramen.kernel.http_edge import trace_id_of
from foramen.kernel.log import get_log
from foramen.kernel.settings import Settings
from foramen.launcher.admission import admit
from foramen.launcher.endpoints import choose, trial
from foramen.launcher.pages import message, redirect
from foramen.launcher.steps import PATH

Handler = Callable[[Environment, Request, Session, dict[str, str]], Awaitable[Response]]
SIGN_IN = f"{MOUNT}/login?then=launcher"
ROUTES: dict[str, dict[str, Handler]] = {
    "/": {"GET": choose.choose_page, "POST": choose.choose},
    "/app": {"GET": trial.app_page, "POST": trial.app},
    "/callback": {"GET": trial.callback},
    "/trials/{trial}": {"GET": trial.trial_page, "POST": trial.step},
}


def launcher_routes(identity: IdentityService, settings: Settings) -> list[BaseRoute]:
    """Return the routes to mount: none where the launcher is switched off."""
    if settings.launcher == "off":
        return []

    async def with_slash(_: Request) -> Response:
        return redirect(f"{PATH}/")

    return [Route(PATH, with_slash), Mount(PATH, build_app(identity.environment))]


def build_app(env: Environment) -> Starlette:
    """Build the launcher."""

    async def absent(request: Request, _: Exception) -> Response:
        return message(env, request, 404, "absent")

    routes = [Route(path, _endpoint(env, path, methods), methods=list(methods)) for path, methods in ROUTES.items()]
    proxies = parse_proxies(env.settings.trusted_proxies)
    return Starlette(
        routes=routes, middleware=[Middleware(Forwarded, proxies)], exception_handlers={404: absent, 405: absent}
    )


def _endpoint(env: Environment, path: str, methods: dict[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await _answer(env, request, methods["GET" if request.method == "HEAD" else request.method])
        except InteropError as error:
            reason = "unavailable" if isinstance(error, UpstreamError) else "not_possible"
            response = message(env, request, error.status, reason, error.message)
            response.headers.update(error.headers)
            return response
        except Exception:  # noqa: BLE001  the last line of defence: never a stack trace to a client
            trace_id = trace_id_of(request)
            get_log().exception("unexpected error", trace_id=trace_id, route=path)
            return message(env, request, 500, "internal", f"trace id {trace_id}")

    return endpoint


async def _answer(env: Environment, request: Request, handler: Handler) -> Response:
    session, allowed = await env.database.run(lambda connection: admit(env, connection, request))
    if session is None:
        return redirect(SIGN_IN)
    if not allowed:
        env.audit.wake()
        return message(env, request, 403, "not_allowed")
    form: dict[str, str] = {}
    if request.method == "POST":
        form = await form_parameters(request)
        if not form_is_ours(env, request, form):
            return message(env, request, 403, "csrf")
    response = await handler(env, request, session, form)
    env.audit.wake()
    return response
