"""`/apps/admin/clients`: OAuth clients with their launch URLs; approving, rejecting, disabling, registering them."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.admin.layout import Paging, Undo, confirm, done, page_number, render, told
from foramen.admin.page import Call
from foramen.identity.oauth.client_checks import PRIVATE_KEY, PUBLIC, SECRET
from foramen.identity.oauth.clients import Client
from foramen.identity.people.accounts import Account
from foramen.identity.rights import client_administration as administration
from foramen.identity.rights.client_administration import ClientRegistration, ListedClient
from foramen.identity.text import explain_scope
from foramen.kernel.errors import ConflictError, InvalidRequestError

STATES = ("pending", "approved", "rejected", "withdrawn", "disabled")
METHODS = (PUBLIC, SECRET, PRIVATE_KEY)


async def clients_page(call: Call) -> Response:
    """List clients, those that wait for approval first."""
    number, state = page_number(call), call.query.get("status", "")

    def work(connection: Connection, administrator: Account) -> tuple[list[ListedClient], int]:
        first = Paging(number, 0)
        return administration.search_clients(
            connection,
            administrator,
            text=call.query.get("q", "")[:64],
            state=state if state in STATES else "",
            offset=first.offset,
            limit=first.size,
        )

    found, total = await call.run(work)
    return render(call, "clients.html", clients=found, shown=Paging(number, total), states=STATES)


async def client_page(call: Call) -> Response:
    """Show a registration, and the form that decides on it."""
    return await _client_page(call)


async def _client_page(call: Call, *, status: int = 200, problem: str = "") -> Response:
    found = await _find(call)
    scopes = found.client.scope.split()
    turned = call.done == "client_disabled" and found.disabled  # the word is typed by anybody
    undo = Undo(f"/clients/{found.client.client_id}/enable", {}) if turned else None
    return render(
        call,
        "client.html",
        status=status,
        problem=problem,
        undo=undo,
        found=found,
        client=found.client,
        shown=found.shown,
        scopes=[(scope, explain_scope(scope, call.language)) for scope in scopes],
        metadata=json.dumps(found.client.metadata, indent=2, ensure_ascii=False) if found.client.metadata else "",
    )


async def approve(call: Call) -> Response:
    """Approve a registration exactly as it was shown."""
    client_id, scope, seen = call.part("client_id"), call.form.get("scope", ""), call.form.get("digest", "")
    try:
        await call.run(
            lambda connection, administrator: administration.approve(
                connection, administrator, client_id, scope=scope, seen=seen
            )
        )
    except (ConflictError, InvalidRequestError) as error:
        return await _client_page(call, status=error.status, problem=told(call, error))
    return done(f"/clients/{client_id}", "client_approved")


async def ask_reject(call: Call) -> Response:
    """Ask before a registration is rejected."""
    return await _ask(call, "reject")


async def reject(call: Call) -> Response:
    """Reject a registration."""
    client_id = call.part("client_id")
    await call.run(lambda connection, administrator: administration.reject(connection, administrator, client_id))
    return done(f"/clients/{client_id}", "client_rejected")


async def ask_disable(call: Call) -> Response:
    """Ask before a client is disabled."""
    return await _ask(call, "disable")


async def disable(call: Call) -> Response:
    """Disable a client; its tokens end."""
    return await _turn(call, disabled=True)


async def enable(call: Call) -> Response:
    """Enable a client again; its old tokens stay revoked."""
    return await _turn(call, disabled=False)


async def new_client_page(call: Call) -> Response:
    """Show the form of a new client."""
    return render(call, "client_form.html", methods=METHODS)


async def new_client(call: Call) -> Response:
    """Register a client, and show its secret once."""
    try:
        wanted = _wanted(call.form)
        secret = await call.run(
            lambda connection, administrator: administration.register(connection, administrator, wanted)
        )
    except (ConflictError, InvalidRequestError) as error:
        return render(call, "client_form.html", status=error.status, problem=told(call, error), methods=METHODS)
    if secret is None:
        return done(f"/clients/{wanted.client_id}", "client_registered")
    response = render(call, "client_secret.html", client=wanted, secret=secret)
    response.headers["Cache-Control"] = "no-store"
    return response


async def _find(call: Call) -> ClientRegistration:
    client_id = call.part("client_id")
    return await call.run(
        lambda connection, administrator: administration.find_client_registration(connection, administrator, client_id)
    )


async def _ask(call: Call, what: str) -> Response:
    found = await _find(call)
    return confirm(
        call,
        question=call.t[f"client_{what}_question"].format(client=found.client.client_id),
        explanation=call.t[f"client_{what}_explanation"],
        action=call.t[f"client_{what}"],
        back=f"/clients/{found.client.client_id}",
    )


async def _turn(call: Call, *, disabled: bool) -> Response:
    client_id = call.part("client_id")
    await call.run(
        lambda connection, administrator: administration.set_disabled(
            connection, administrator, client_id, disabled=disabled
        )
    )
    return done(f"/clients/{client_id}", "client_disabled" if disabled else "client_enabled")


def _wanted(form: dict[str, str]) -> Client:
    """Read the form of a new client.

    Raises
    ------
    InvalidRequestError
        The method is none, or the keys are no JSON.
    """
    method = form.get("auth_method", "")
    if method not in METHODS:
        raise InvalidRequestError("The authentication method of a client is one of those offered")
    name = form.get("client_id", "").strip()
    uri = form.get("jwks_uri", "").strip()
    return Client(
        client_id=name,
        auth_method=method,
        scope=" ".join(form.get("scope", "").split()),
        redirect_uris=tuple(form.get("redirect_uris", "").split()),
        launch_url=form.get("launch_url", "").strip() or None,
        name_zh=form.get("name_zh", "").strip() or name,
        name_en=form.get("name_en", "").strip() or name,
        jwks=_key_set(form.get("jwks", "")) if method == PRIVATE_KEY and not uri else None,
        jwks_uri=uri if method == PRIVATE_KEY and uri else None,
        require_pushed=bool(form.get("require_pushed")),
    )


def _key_set(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InvalidRequestError("The keys of a client are a JWK Set (RFC 7517)") from error
    if not isinstance(content, dict):
        raise InvalidRequestError("The keys of a client are a JWK Set (RFC 7517)")
    return content
