"""Every route of the authorization server: path, methods, handler, how its errors look, who may call it by script.

CORS as SMART asks (https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#considerations-for-cross-origin-resource-sharing-cors-support):
the endpoints that apps call by script, never the pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from foramen.identity.endpoints import (
    account,
    account_changes,
    authorize,
    break_glass,
    consent,
    encounter_picker,
    enrol,
    federation,
    federation_links,
    federation_logout,
    launch,
    login,
    logout,
    par,
    passkey,
    patient_picker,
    register,
    second_factor,
    set_password,
    token,
    userinfo,
)
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.pages import error_page
from foramen.kernel.errors import InteropError, PayloadTooLargeError, UpstreamError
from foramen.kernel.http_edge import trace_id_of
from foramen.kernel.log import get_log

Handler = Callable[[Environment, Request], Awaitable[Response]]
_CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "WWW-Authenticate, Retry-After"}
_BUSY = ("/authorize", "/token", "/introspect", "/jwks")
_DIRECT = ("/authorize", "/token")
_PREFLIGHT = {
    **_CORS,
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "authorization, content-type, accept, traceparent",
    "Access-Control-Max-Age": "600",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the table."""

    path: str
    methods: dict[str, Handler]
    page: bool = False
    cors: bool = False
    metadata: str = ""  # its name in the discovery documents


ENDPOINTS = (
    Endpoint(
        "/authorize",
        {"GET": authorize.authorize, "POST": authorize.authorize},
        page=True,
        metadata="authorization_endpoint",
    ),
    Endpoint("/continue", {"GET": authorize.continue_}, page=True),
    Endpoint("/login", {"GET": login.login_page, "POST": login.login}, page=True),
    Endpoint(
        "/second-factor", {"GET": second_factor.second_factor_page, "POST": second_factor.second_factor}, page=True
    ),
    Endpoint("/enrol", {"GET": enrol.enrol_page, "POST": enrol.enrol}, page=True),
    Endpoint("/enrol/passkey", {"GET": passkey.enrol_passkey_page, "POST": passkey.enrol_passkey}, page=True),
    Endpoint("/passkey", {"GET": passkey.passkey_page, "POST": passkey.passkey}, page=True),
    Endpoint("/passkey.js", {"GET": passkey.script}, page=True),
    Endpoint("/set-password", {"GET": set_password.set_password_page, "POST": set_password.set_password}, page=True),
    Endpoint("/account", {"GET": account.account_page}, page=True),
    Endpoint("/account/password", {"POST": account_changes.change_password}, page=True),
    Endpoint("/account/factor", {"POST": account_changes.factor}, page=True),
    Endpoint("/account/recovery-codes", {"POST": account_changes.recovery_codes}, page=True),
    Endpoint("/account/sessions", {"POST": account_changes.sessions}, page=True),
    Endpoint("/account/apps", {"POST": account_changes.withdraw}, page=True),
    Endpoint("/break-glass", {"GET": break_glass.break_glass_page, "POST": break_glass.break_glass}, page=True),
    Endpoint("/break-glass/end", {"POST": break_glass.end_break_glass}, page=True),
    Endpoint("/consent", {"GET": consent.consent_page, "POST": consent.consent}, page=True),
    Endpoint("/patient", {"GET": patient_picker.patient_page, "POST": patient_picker.patient}, page=True),
    Endpoint("/encounter", {"GET": encounter_picker.encounter_page, "POST": encounter_picker.encounter}, page=True),
    Endpoint("/logout", {"GET": logout.logout_page, "POST": logout.logout}, page=True, metadata="end_session_endpoint"),
    Endpoint("/federation", {"GET": federation_links.links_page}, page=True),
    Endpoint("/federation/{provider}/start", {"GET": federation.start}, page=True),
    Endpoint(
        "/federation/{provider}/callback", {"GET": federation.callback, "POST": federation_logout.posted}, page=True
    ),
    Endpoint(
        "/federation/{provider}/link", {"GET": federation_links.link_page, "POST": federation_links.link}, page=True
    ),
    Endpoint("/federation/{provider}/unlink", {"POST": federation_links.unlink}, page=True),
    Endpoint("/federation/{provider}/signed-out", {"GET": federation_logout.signed_out}, page=True),
    Endpoint("/federation/{provider}/backchannel-logout", {"POST": federation_logout.backchannel_logout}),
    Endpoint("/launch", {"POST": launch.launch}),
    Endpoint("/token", {"POST": token.token}, cors=True, metadata="token_endpoint"),
    Endpoint("/revoke", {"POST": token.revoke}, cors=True, metadata="revocation_endpoint"),
    Endpoint("/introspect", {"POST": token.introspect}, cors=True, metadata="introspection_endpoint"),
    Endpoint(
        "/userinfo", {"GET": userinfo.userinfo, "POST": userinfo.userinfo}, cors=True, metadata="userinfo_endpoint"
    ),
    Endpoint("/par", {"POST": par.par}, cors=True, metadata="pushed_authorization_request_endpoint"),
    Endpoint("/register", {"POST": register.register}, metadata="registration_endpoint"),
    Endpoint(
        "/register/{client_id}",
        {"GET": register.registration, "PUT": register.registration, "DELETE": register.registration},
    ),
    Endpoint("/jwks", {"GET": token.jwks}, cors=True, metadata="jwks_uri"),
)


def routes(env: Callable[[], Environment]) -> list[Route]:
    """Build the routes; the environment exists from the start of the service on."""
    busy_first = sorted(ENDPOINTS, key=lambda item: item.path not in _BUSY)  # every request looks from the first on
    return [Route(item.path, handler(env, item), methods=_methods(item)) for item in busy_first]


def direct_handlers(env: Callable[[], Environment]) -> dict[tuple[str, str], Callable[[Request], Awaitable[Response]]]:
    """Return the handlers of the endpoints that every sign-in asks, by method and whole path."""
    busy = [item for item in ENDPOINTS if item.path in _DIRECT]
    return {(method, f"{MOUNT}{item.path}"): handler(env, item) for item in busy for method in item.methods}


def _methods(endpoint: Endpoint) -> list[str]:
    return [*endpoint.methods, *(["OPTIONS"] if endpoint.cors else [])]


def handler(env: Callable[[], Environment], endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Wrap the handlers of a path with error rendering and CORS."""

    async def handle(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=_PREFLIGHT)
        method = "GET" if request.method == "HEAD" else request.method
        try:
            response = await endpoint.methods[method](env(), request)
        except InteropError as error:
            response = _render(env(), request, error, page=endpoint.page)
        except Exception:  # noqa: BLE001  the last line of defence: never a stack trace to a client
            trace_id = trace_id_of(request)
            get_log().exception("unexpected error", trace_id=trace_id, route=endpoint.path)
            response = _render(env(), request, InteropError(f"trace id {trace_id}"), page=endpoint.page)
        if endpoint.cors:
            response.headers.update(_CORS)
        return response

    return handle


def _render(env: Environment, request: Request, error: InteropError, *, page: bool) -> Response:
    """Render an error: a page for people, RFC 6749 §5.2 for programs."""
    if page:
        reason = (
            "unavailable"
            if isinstance(error, UpstreamError)
            else "internal"
            if error.status >= 500
            else "invalid_request"
        )
        response: Response = error_page(env, request, error.status, reason, error.message)
    else:
        body = {"error": _oauth_code(error), "error_description": error.message}
        response = JSONResponse(body, status_code=error.status, headers={"Cache-Control": "no-store"})
    response.headers.update(error.headers)
    return response


def _oauth_code(error: InteropError) -> str:
    """Name an error with a word of RFC 6749 or RFC 6750."""
    if isinstance(error, UpstreamError):
        return "temporarily_unavailable"
    if isinstance(error, PayloadTooLargeError):
        return "invalid_request"
    codes = {401: "invalid_token", 403: "access_denied", 500: "server_error"}
    return codes.get(error.status, "invalid_request")
