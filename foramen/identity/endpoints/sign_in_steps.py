"""What the steps of a sign-in share: where it leads, how it ends, and the answers of throttling.

Password → second factor (or its enrolment) → on; a passkey is both at once.
OWASP Multifactor Authentication Cheat Sheet.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.audit_outbox import record
from foramen.identity.bounded_audit import record_refusal
from foramen.identity.cookies import CSRF, DEVICE, SESSION, clear_cookie, read_cookie, set_cookie
from foramen.identity.cookies import SIGN_IN as PARTIAL
from foramen.identity.database import utc_now
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.federation.outside_sessions import begun_outside, goes_on
from foramen.identity.oauth.authorization_requests import find_request
from foramen.identity.oauth.clients import Client, find_client
from foramen.identity.pages import app_name, error_page, page_language
from foramen.identity.parameters import client_address
from foramen.identity.people.accounts import Account
from foramen.identity.people.known_devices import LIFETIME as DEVICE_LIFETIME
from foramen.identity.people.known_devices import device_cookie, is_known, remember
from foramen.identity.people.partial_sign_in import end_partial, find_partial
from foramen.identity.people.sessions import Session, renew_session, start_session
from foramen.identity.people.throttling import count_failure, wait_s
from foramen.identity.security_event import FAILED, REFUSED, SIGN_IN, SUCCESS, SecurityEvent

ACCOUNT_PAGE = f"{MOUNT}/account"
# Words, never addresses: nobody is sent where a link says.
_PLACES = {
    "account": ACCOUNT_PAGE,
    "break-glass": f"{MOUNT}/break-glass",
    "launcher": "/apps/launcher/",
    "admin": "/apps/admin/",
    "images": "/apps/images/",
}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a sign-in leads: an authorization request, a page of ours, or the portal."""

    request_id: str = ""
    then: str = ""

    @property
    def location(self) -> str:
        """Path to go on to."""
        if self.request_id:
            return f"{MOUNT}/continue?{urlencode({'request': self.request_id})}"
        return _PLACES.get(self.then, "/")

    def page(self, path: str) -> str:
        """Path of a page of this sign-in."""
        parts = {"request": self.request_id, "then": self.then}
        query = urlencode({name: value for name, value in parts.items() if value})
        return f"{MOUNT}/{path}{f'?{query}' if query else ''}"


def destination(parameters: dict[str, str]) -> Destination:
    """Read where a sign-in leads from a query or a form."""
    then = parameters.get("then", "")
    return Destination(parameters.get("request", ""), then if then in _PLACES else "")


def page_values(env: Environment, connection: Connection, request: Request, to: Destination) -> dict[str, Any] | None:
    """Return what every page of a sign-in needs to render; None when its authorization request has run out."""
    pending = find_request(connection, to.request_id) if to.request_id else None
    client: Client | None = find_client(connection, pending.client_id) if pending else None
    if to.request_id and client is None:
        return None
    parameters = pending.parameters if pending else {}
    ui_locales = parameters.get("ui_locales", "")
    return {
        "redirect_uri": parameters.get("redirect_uri"),
        "ui_locales": ui_locales,
        "app": app_name(client, page_language(env, request, ui_locales)) if client else "",
        "request_id": to.request_id,
        "then": to.then,
    }


def partial_account(env: Environment, connection: Connection, request: Request) -> Account | None:
    """Return whose password this browser has shown, while the second factor is still to come."""
    return find_partial(connection, read_cookie(env, request, PARTIAL), utc_now())


def complete(
    env: Environment, connection: Connection, request: Request, account: Account, factors: Collection[str]
) -> str:
    """Start the session of a sign-in that is complete; returns its cookie."""
    factors, outside = begun_outside(connection, read_cookie(env, request, PARTIAL), account, factors)
    end_partial(connection, read_cookie(env, request, PARTIAL))
    event = SecurityEvent(
        what=SIGN_IN,
        outcome=SUCCESS,
        account=account.name,
        fhir_user=account.fhir_user,
        address=client_address(request),
        reason=" ".join(sorted(factors)),
    )
    record(connection, event)
    cookie = start_session(
        connection,
        account.name,
        read_cookie(env, request, SESSION),
        utc_now(),
        factors=factors,
        lifetime_s=env.settings.session_absolute_s,
        address=client_address(request),
        device=request.headers.get("user-agent"),
    )
    goes_on(connection, outside, cookie, env.settings.session_absolute_s, utc_now())
    _remember_device(env, connection, request, account.name, cookie)
    return cookie


def renewed(env: Environment, connection: Connection, request: Request, session: Session) -> str:
    """Give a session a new id after what it may do has changed; returns its cookie, for `with_session`."""
    cookie = renew_session(connection, session.session_digest)
    _remember_device(env, connection, request, session.account.name, cookie)
    return cookie


def _remember_device(env: Environment, connection: Connection, request: Request, account: str, cookie: str) -> None:
    device = device_cookie(env.csrf_secret, cookie)
    remember(connection, read_cookie(env, request, DEVICE), device, account, utc_now())


def address_wait_s(env: Environment, connection: Connection, request: Request, name: str, now: datetime) -> int:
    """Return how many seconds a password or code for `name` has to wait for the failures of its address; 0: none.

    None in a browser from which this account signed in before: a neighbour's guesses must not stop it.
    """
    known = is_known(connection, read_cookie(env, request, DEVICE), name, now)
    waiting = wait_s(connection, client_address(request), now)
    return 0 if known else waiting


def with_session(env: Environment, request: Request, response: Response, cookie: str) -> Response:
    """Give the browser its session; what it carried before signing in goes."""
    set_cookie(env, response, SESSION, cookie)
    device = device_cookie(env.csrf_secret, cookie)
    set_cookie(env, response, DEVICE, device, int(DEVICE_LIFETIME.total_seconds()))
    clear_cookie(env, response, CSRF)
    if read_cookie(env, request, PARTIAL):
        clear_cookie(env, response, PARTIAL)
    return response


def signed_in(env: Environment, request: Request, to: Destination, cookie: str) -> Response:
    """Answer a complete sign-in: on to where it leads."""
    return with_session(env, request, redirect(to.location), cookie)


def failed(
    env: Environment, connection: Connection, request: Request, what: tuple[str, str] | str, account: str | None
) -> None:
    """Record a failed step and count it against the address."""
    address = client_address(request)
    record(connection, SecurityEvent(what=what, outcome=FAILED, account=account, address=address))
    if count_failure(connection, env.settings, address, utc_now()):
        event = SecurityEvent(what=what, outcome=REFUSED, address=address, reason="throttled")
        record(connection, event)  # once for each wait that begins, not for each request turned away


def failed_unguessable(connection: Connection, request: Request, what: str, account: str | None = None) -> None:
    """Record a failed step that no number of tries would get right: it counts against nobody."""
    event = SecurityEvent(what=what, outcome=FAILED, account=account, address=client_address(request))
    record_refusal(connection, event)


def throttled(env: Environment, request: Request, wait_s: int) -> Response:
    """Answer 429: too many failures from this address, whoever tries (RFC 6585 §4)."""
    response = error_page(env, request, 429, "throttled")
    response.headers["Retry-After"] = str(wait_s)
    return response
