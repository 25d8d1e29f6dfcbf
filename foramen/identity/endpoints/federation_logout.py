"""Signing out with a provider: ours leads through theirs and back to `signed-out`, theirs ends ours (back channel).

OpenID Connect RP-Initiated Logout 1.0, Back-Channel Logout 1.0, CAS 3.0 §2.3 and §2.8.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from foramen.identity.bounded_audit import record_refusal
from foramen.identity.cookies import read_cookie, set_cookie
from foramen.identity.database import utc_now
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.federation import COOKIE
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.federation import cas, requests
from foramen.identity.federation.logout_token import OutsideLogout, verify_logout_token
from foramen.identity.federation.oidc import header_kid, with_query
from foramen.identity.federation.outside_identity import OutsideRefused
from foramen.identity.federation.outside_sessions import Held, end_outside, id_token_of
from foramen.identity.federation.providers import CAS, OIDC, Provider, find_provider
from foramen.identity.opaque_tokens import new_opaque_token
from foramen.identity.pages import page_language, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.security_event import REFUSED, SIGN_OUT, SecurityEvent
from foramen.kernel.errors import InteropError
from foramen.kernel.log import get_log

_ANSWER = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class OutsideSignOut:
    """Where the browser goes to sign out at the provider, which is called `name`."""

    url: str
    browser: str
    name: str

    def answer(self, env: Environment, request: Request, *, by_form: bool) -> Response:
        """Send the browser there, with the cookie that its return is bound to.

        After a form by way of a page: browsers apply the form's CSP to redirects, and the form is on many pages.
        """
        response = (
            render(env, request, "federation_sign_out.html", url=self.url, name=self.name)
            if by_form
            else redirect(self.url)
        )
        if by_form:
            response.headers["Refresh"] = f"0; url={self.url}"
        set_cookie(env, response, COOKIE, self.browser, int(requests.LIFETIME.total_seconds()))
        return response


async def outside_sign_out(
    env: Environment, request: Request, held: Held | None, target: str | None
) -> OutsideSignOut | None:
    """Return how to sign out at the provider a session came from; None: it did not, or nothing is known of how.

    Parameters
    ----------
    held : where the session that has just ended came from
    target : where the browser is to be in the end, checked before
    """
    if held is None:
        return None
    browser = read_cookie(env, request, COOKIE) or new_opaque_token()

    def work(connection: Connection) -> tuple[Provider, str] | None:
        provider = find_provider(connection, held.provider)
        if provider is None or not provider.settings.single_logout:
            return None
        state = requests.begin(
            connection,
            env.data_keys,
            provider=provider.id,
            browser=browser,
            purpose=requests.SIGN_OUT,
            now=utc_now(),
            destination={"target": target or ""},
        )
        return provider, state

    begun = await env.database.run(work)
    if begun is None:
        return None
    provider, state = begun
    url = await _url(env, provider, held, state)
    return OutsideSignOut(url, browser, provider.name(page_language(env, request))) if url else None


async def _url(env: Environment, provider: Provider, held: Held, state: str) -> str | None:
    back = f"{env.settings.origin}{MOUNT}/federation/{provider.id}/signed-out"
    if provider.kind == CAS:
        return cas.logout_url(provider, with_query(back, {"state": state}))
    try:
        endpoint = (await env.outside.metadata(provider)).end_session_endpoint
    except InteropError:
        get_log().warning("provider not asked to sign out", part="identity")
        return None  # here the session is over whatever happens there
    if endpoint is None:
        return None
    parameters = {"client_id": provider.client_id or "", "post_logout_redirect_uri": back, "state": state}
    hint = id_token_of(env.data_keys, held)
    return with_query(endpoint, {**({"id_token_hint": hint} if hint else {}), **parameters})


async def signed_out(env: Environment, request: Request) -> Response:
    """Go on after the provider's sign-out: to where the app asked for, or to our own page."""
    state, name = query_parameters(request).get("state", ""), request.path_params["provider"]
    browser = read_cookie(env, request, COOKIE)

    def work(connection: Connection) -> str:
        pending = requests.take(connection, env.data_keys, provider=name, state=state, browser=browser, now=utc_now())
        return pending.destination.get("target", "") if pending and pending.purpose == requests.SIGN_OUT else ""

    target = await env.database.run(work)
    return redirect(target) if target else render(env, request, "logout.html", done=True)


async def backchannel_logout(env: Environment, request: Request) -> Response:
    """End what came from a session that is over at an OpenID Connect provider."""
    token = (await form_parameters(request)).get("logout_token", "")
    provider = await _provider(env, request)
    if provider is None or provider.kind != OIDC or not token:
        return _not_done()
    try:
        keys = await env.outside.keys(provider, header_kid(token))
        over = verify_logout_token(provider, keys, token)
    except OutsideRefused as error:
        return await _refused(env, request, provider, error)
    return await _over(env, request, provider, over)


async def posted(env: Environment, request: Request) -> Response:
    """Take what a CAS server posts to the service address: that the session of a ticket is over."""
    form = await form_parameters(request)
    provider = await _provider(env, request)
    if provider is None or provider.kind != CAS or "logoutRequest" not in form:
        return _not_done()
    try:
        over = cas.parse_logout(provider, form["logoutRequest"])
    except OutsideRefused as error:
        return await _refused(env, request, provider, error)
    return await _over(env, request, provider, over)


async def _provider(env: Environment, request: Request) -> Provider | None:
    name = request.path_params["provider"]
    return await env.database.run(lambda connection: find_provider(connection, name))


async def _over(env: Environment, request: Request, provider: Provider, over: OutsideLogout) -> Response:
    address = client_address(request)
    ended = await env.database.run(lambda connection: end_outside(connection, over, utc_now(), address))
    if ended is None:
        return await _refused(env, request, provider, OutsideRefused("logout: told before"))
    env.audit.wake()
    return Response(status_code=200, headers=_ANSWER)


async def _refused(env: Environment, request: Request, provider: Provider, error: OutsideRefused) -> Response:
    event = SecurityEvent(SIGN_OUT, REFUSED, address=client_address(request), reason=f"{provider.id}: {error.reason}")
    await env.database.run(lambda connection: record_refusal(connection, event))
    env.audit.wake()
    return _not_done()


def _not_done() -> Response:
    return JSONResponse({"error": "invalid_request"}, status_code=400, headers=_ANSWER)
