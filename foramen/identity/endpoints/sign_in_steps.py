"""What the steps of a sign-in share: where it leads, how it ends, and the answers of throttling.

Password → second factor (or its enrolment) → on; a passkey is both at once.
OWASP Multifactor Authentication Cheat Sheet.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from foramen.identity.accounts import Account
from foramen.identity.audit_outbox import record
from foramen.identity.authorization_requests import find_request
from foramen.identity.clients import Client, find_client
from foramen.identity.cookies import CSRF, SESSION, clear_cookie, read_cookie, set_cookie
from foramen.identity.cookies import SIGN_IN as PARTIAL
from foramen.identity.database import utc_now
from foramen.identity.endpoints.authorize import redirect
from foramen.identity.environment import MOUNT, Environment
from foramen.identity.pages import app_name, error_page, page_language
from foramen.identity.parameters import client_address
from foramen.identity.partial_sign_in import end_partial, find_partial
from foramen.identity.security_event import FAILED, REFUSED, SIGN_IN, SUCCESS, SecurityEvent
from foramen.identity.sessions import start_session
from foramen.identity.throttling import count_failure

ACCOUNT_PAGE = f"{MOUNT}/account"
_PLACES = {"account": ACCOUNT_PAGE}  # words, never addresses: nobody is sent where a link says


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
    return start_session(
        connection,
        account.name,
        read_cookie(env, request, SESSION),
        utc_now(),
        factors=factors,
        lifetime_s=env.settings.session_absolute_s,
        address=client_address(request),
        device=request.headers.get("user-agent"),
    )


def with_session(env: Environment, request: Request, response: Response, cookie: str) -> Response:
    """Give the browser its session; what it carried before signing in goes."""
    set_cookie(env, response, SESSION, cookie)
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


def throttled(env: Environment, request: Request, wait_s: int) -> Response:
    """Answer 429: too many failures from this address, whoever tries (RFC 6585 §4)."""
    response = error_page(env, request, 429, "throttled")
    response.headers["Retry-After"] = str(wait_s)
    return response
