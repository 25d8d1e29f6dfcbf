"""`/auth/federation/{provider}/start` and `…/callback`: to an outside identity provider and back.

OpenID Connect Core §3.1, CAS 3.0 §2.1-2.5; RFC 9700 §4 (state and nonce bound to the browser, one provider each).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.bounded_audit import record_refusal
from foramen.identity.cookies import SIGN_IN as PARTIAL
from foramen.identity.cookies import read_cookie, set_cookie
from foramen.identity.database import utc_now
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session
from foramen.identity.endpoints.federation_links import finish_link
from foramen.identity.endpoints.federation_settling import Settled, settle
from foramen.identity.endpoints.sign_in_steps import Destination, destination, signed_in
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.federation import cas, oidc, requests
from foramen.identity.federation.linking import unusable_hash
from foramen.identity.federation.oidc import Journey
from foramen.identity.federation.outside_identity import OutsideIdentity, OutsideRefused
from foramen.identity.federation.providers import OIDC, Provider, find_provider
from foramen.identity.federation.requests import LIFETIME, Pending
from foramen.identity.oauth.authorization_requests import find_request
from foramen.identity.opaque_tokens import new_opaque_token
from foramen.identity.pages import page_language, render
from foramen.identity.parameters import client_address, query_parameters
from foramen.identity.people.partial_sign_in import LIFETIME as PARTIAL_LIFETIME
from foramen.identity.security_event import FAILED, SIGN_IN, SecurityEvent
from foramen.identity.text import WORDS

COOKIE = "foramen-federation"


@dataclass(frozen=True, slots=True)
class _Way:
    """A browser about to leave for a provider."""

    provider: Provider
    state: str
    fresh: bool


def callback_url(env: Environment, provider: Provider) -> str:
    """Return the address a provider sends browsers back to: one for each provider, against mix-up."""
    return f"{env.settings.origin}{MOUNT}/federation/{provider.id}/callback"


def refused(env: Environment, request: Request, reason: str, to: Destination | None = None) -> Response:
    """Say why nobody is signed in, and how to go on."""
    return render(
        env,
        request,
        "federation_refused.html",
        status=403,
        message=WORDS[page_language(env, request)][f"federation_{reason}"],
        login_page=(to or Destination()).page("login"),
    )


async def start(env: Environment, request: Request) -> Response:
    """Send the browser to the provider."""
    to = destination(query_parameters(request))
    browser = read_cookie(env, request, COOKIE) or new_opaque_token()

    def work(connection: Connection) -> _Way | None:
        provider = find_provider(connection, request.path_params["provider"])
        if provider is None:
            return None
        pending = find_request(connection, to.request_id) if to.request_id else None
        prompts = pending.parameters.get("prompt", "").split() if pending else []
        # Who is signed in and comes here again is asked to prove themselves: a session out there is not enough.
        fresh = "login" in prompts or current_session(env, connection, request) is not None
        state = requests.begin(
            connection,
            env.data_keys,
            provider=provider.id,
            browser=browser,
            purpose=requests.SIGN_IN,
            now=utc_now(),
            destination={"request": to.request_id, "then": to.then},
            fresh=fresh,
        )
        return _Way(provider, state, fresh)

    way = await env.database.run(work)
    if way is None:
        return refused(env, request, "expired", to)
    return await leave(env, request, way.provider, way.state, browser, fresh=way.fresh)


async def leave(
    env: Environment, request: Request, provider: Provider, state: str, browser: str, *, fresh: bool
) -> Response:
    """Redirect to the provider and give the browser the cookie that its return is bound to."""
    locale = WORDS[page_language(env, request)]["html_lang"]
    journey = _journey(env, provider, state, browser, fresh=fresh)
    if provider.kind == OIDC:
        metadata = await env.outside.metadata(provider)
        url = oidc.authorization_url(
            provider, metadata, journey, max_age_s=env.settings.session_absolute_s, ui_locales=locale
        )
    else:
        url = cas.login_url(provider, _service(journey), fresh=fresh)
    response = redirect(url)
    set_cookie(env, response, COOKIE, browser, int(LIFETIME.total_seconds()))
    return response


def _journey(env: Environment, provider: Provider, state: str, browser: str, *, fresh: bool) -> Journey:
    nonce, verifier = (requests.derived(env.csrf_secret, what, state, browser) for what in ("nonce", "verifier"))
    return Journey(state, nonce, verifier, callback_url(env, provider), fresh)


def _service(journey: Journey) -> str:
    return oidc.with_query(journey.redirect_uri, {"state": journey.state})


async def callback(env: Environment, request: Request) -> Response:
    """Take the provider's answer: verify it, then sign in or link."""
    parameters = query_parameters(request)
    state, browser = parameters.get("state", ""), read_cookie(env, request, COOKIE)
    name = request.path_params["provider"]

    def take(connection: Connection) -> tuple[Provider, Pending] | None:
        provider = find_provider(connection, name)
        pending = requests.take(connection, env.data_keys, provider=name, state=state, browser=browser, now=utc_now())
        if provider is None or pending is None or pending.purpose == requests.SIGN_OUT:
            said = f"{provider.id}: not asked for in this browser" if provider else "no such provider"
            record_refusal(connection, _event(request, said))
            return None
        return provider, pending

    taken = await env.database.run(take)
    env.audit.wake()
    if taken is None or browser is None:
        return refused(env, request, "expired")
    provider, pending = taken
    to = destination(pending.destination)
    try:
        found = await _verified(env, provider, parameters, pending, state, browser)
    except OutsideRefused as error:
        return await not_believed(env, request, provider, error, to)
    return await finish(env, request, provider, found, pending)


async def _verified(
    env: Environment, provider: Provider, parameters: dict[str, str], pending: Pending, state: str, browser: str
) -> OutsideIdentity:
    journey = _journey(env, provider, state, browser, fresh=pending.fresh)
    if provider.kind == OIDC:
        code = oidc.check_response(await env.outside.metadata(provider), parameters)
        return await oidc.redeem(env.outside, provider, provider.secret(env.data_keys), code, journey)
    return await cas.validate(provider, _service(journey), parameters.get("ticket", ""), fresh=pending.fresh)


async def not_believed(
    env: Environment, request: Request, provider: Provider, error: OutsideRefused, to: Destination
) -> Response:
    """Record an answer that is not believed: it counts against no address, as no number of tries makes it right."""
    event = _event(request, f"{provider.id}: {error.reason}")
    await env.database.run(lambda connection: record_refusal(connection, event))
    env.audit.wake()
    return refused(env, request, "denied" if error.denied else "failed", to)


async def finish(
    env: Environment, request: Request, provider: Provider, found: OutsideIdentity, pending: Pending
) -> Response:
    """Go on with a verified identity: a link, a session, a second factor of ours, or a refusal."""
    if pending.purpose == requests.LINK:
        return await finish_link(env, request, provider, found, pending)
    await asyncio.to_thread(unusable_hash)  # made once, here, as it takes long and a transaction should not
    to = destination(pending.destination)
    settled: Settled = await env.database.run(
        lambda connection: settle(env, connection, request, provider, found, pending)
    )
    env.audit.wake()
    if settled.session:
        return signed_in(env, request, to, settled.session)
    if settled.partial:
        response = redirect(to.page(settled.next_page))
        set_cookie(env, response, PARTIAL, settled.partial, int(PARTIAL_LIFETIME.total_seconds()))
        return response
    return refused(env, request, settled.refused, to)


def _event(request: Request, reason: str) -> SecurityEvent:
    return SecurityEvent(SIGN_IN, FAILED, address=client_address(request), reason=reason)
