"""`/auth/federation`: the outside identities of the person who is signed in — link one, end a link.

NIST SP 800-63C §3.7 (account linking): who links proves to be both, here with a recent local sign-in and its factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.cookies import read_cookie
from foramen.identity.database import utc_now
from foramen.identity.done_notice import done_here, vouch
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.endpoints.current_session import current_session, form_is_ours
from foramen.identity.endpoints.enrol import SIGN_IN_AGAIN, is_recent
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.federation import linking, requests
from foramen.identity.federation.outside_identity import FEDERATED, OutsideIdentity
from foramen.identity.federation.providers import OIDC, Provider, find_provider, list_providers
from foramen.identity.federation.requests import Pending
from foramen.identity.opaque_tokens import new_opaque_token
from foramen.identity.pages import error_page, page_language, render
from foramen.identity.parameters import client_address, form_parameters, query_parameters
from foramen.identity.people.sessions import Session

PAGE = f"{MOUNT}/federation"
_DONE, _PROBLEMS = ("linked", "unlinked"), ("taken",)


@dataclass(frozen=True, slots=True)
class _Linking:
    session: Session
    provider: Provider
    recent: bool


def _may_link(connection: Connection, session: Session) -> bool:
    """Whether the account may be linked: one that a provider made is that provider's, or its groups would not count."""
    return FEDERATED not in session.factors and not linking.signs_in_outside_only(connection, session.account.name)


async def links_page(env: Environment, request: Request) -> Response:
    """List the providers and what is linked."""
    query = query_parameters(request)

    def work(connection: Connection) -> dict[str, Any] | None:
        session = current_session(env, connection, request)
        if session is None:
            return None
        links = linking.links_of(connection, session.account.name)
        return {
            "account": session.account,
            "may_link": _may_link(connection, session),
            "listed": [(provider, links.get(provider.issuer)) for provider in list_providers(connection, enabled=True)],
        }

    values = await env.database.run(work)
    if values is None:
        return redirect(SIGN_IN_AGAIN)
    done, problem = done_here(env, request), query.get("problem", "")
    return render(
        env,
        request,
        "federation_links.html",
        done=done if done in _DONE else "",
        problem=problem if problem in _PROBLEMS else "",
        **values,
    )


def _linking(env: Environment, connection: Connection, request: Request) -> _Linking | None:
    session = current_session(env, connection, request)
    provider = find_provider(connection, request.path_params["provider"])
    if session is None or provider is None or not _may_link(connection, session):
        return None
    return _Linking(session, provider, is_recent(session, utc_now()))


async def link_page(env: Environment, request: Request) -> Response:
    """Ask before the browser leaves for the provider."""
    found = await env.database.run(lambda connection: _linking(env, connection, request))
    if found is None or not found.recent:
        return redirect(SIGN_IN_AGAIN)
    return render(
        env,
        request,
        "federation_link.html",
        redirect_uri=await _leads_to(env, found.provider),
        provider=found.provider,
        name=found.provider.name(page_language(env, request)),
    )


async def _leads_to(env: Environment, provider: Provider) -> str:
    """Return where the form leads in the end: browsers apply CSP form-action to its redirect."""
    if provider.kind == OIDC:
        return (await env.outside.metadata(provider)).authorization_endpoint
    return provider.issuer


async def link(env: Environment, request: Request) -> Response:
    """Begin to link."""
    from foramen.identity.endpoints.federation import COOKIE, leave  # which finishes links here

    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")
    browser = read_cookie(env, request, COOKIE) or new_opaque_token()

    def work(connection: Connection) -> tuple[Provider, str] | None:
        found = _linking(env, connection, request)
        if found is None or not found.recent:
            return None
        state = requests.begin(
            connection,
            env.data_keys,
            provider=found.provider.id,
            browser=browser,
            purpose=requests.LINK,
            now=utc_now(),
            session_digest=found.session.session_digest,
        )
        return found.provider, state

    begun = await env.database.run(work)
    if begun is None:
        return redirect(SIGN_IN_AGAIN)
    return await leave(env, request, *begun, browser, fresh=False)


async def finish_link(
    env: Environment, request: Request, provider: Provider, found: OutsideIdentity, pending: Pending
) -> Response:
    """Link a verified identity to the account of the session that asked for it."""

    def work(connection: Connection) -> bool | None:
        session = current_session(env, connection, request)
        if session is None or session.session_digest != pending.session_digest or not _may_link(connection, session):
            return None
        linking.hold(connection, found.issuer, found.subject)
        return linking.link(connection, provider, found, session.account, utc_now(), client_address(request))

    linked = await env.database.run(work)
    env.audit.wake()
    if linked is None:
        return redirect(SIGN_IN_AGAIN)
    return vouch(env, redirect(f"{PAGE}?{urlencode({'done': 'linked'} if linked else {'problem': 'taken'})}"))


async def unlink(env: Environment, request: Request) -> Response:
    """End a link."""
    form = await form_parameters(request)
    if not form_is_ours(env, request, form):
        return error_page(env, request, 403, "csrf")

    def work(connection: Connection) -> bool:
        found = _linking(env, connection, request)
        if found is None or not found.recent:
            return False
        return linking.unlink(connection, found.session.account.name, found.provider, client_address(request))

    ended = await env.database.run(work)
    env.audit.wake()
    return vouch(env, redirect(f"{PAGE}?done=unlinked" if ended else SIGN_IN_AGAIN))
