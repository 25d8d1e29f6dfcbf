"""Clients as administrators see and change them: search, approve, reject, disable, register."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, select

from foramen.identity import tables
from foramen.identity.audit_outbox import record
from foramen.identity.oauth import client_approval
from foramen.identity.oauth.client_approval import described
from foramen.identity.oauth.client_checks import SECRET
from foramen.identity.oauth.clients import Client, any_registration, generated_secret_hash, save_client
from foramen.identity.opaque_tokens import new_opaque_token
from foramen.identity.people.accounts import Account
from foramen.identity.rights.permissions import own_rights
from foramen.identity.security_event import SUCCESS, SecurityEvent
from foramen.kernel.errors import ConflictError, ForbiddenError, NotFoundError

MANAGE_CLIENTS = "manage-clients"
_COLUMNS = tables.client.c


@dataclass(frozen=True, slots=True)
class ListedClient:
    """One line of the list: `name` in Chinese and English, `status` of the registration, whether it is disabled."""

    client_id: str
    name_zh: str
    name_en: str
    auth_method: str
    first_party: bool
    launch_url: str | None
    status: str
    disabled: bool


@dataclass(frozen=True, slots=True)
class ClientRegistration:
    """A registration as it is decided on: `shown` is `client_approval.described`, whose digest binds the decision."""

    client: Client
    shown: dict[str, Any]
    disabled: bool
    created_at: datetime
    decided_by: str | None
    decided_at: datetime | None


def search_clients(
    connection: Connection, administrator: Account, *, text: str, state: str, offset: int, limit: int
) -> tuple[list[ListedClient], int]:
    """Return a part of the clients, those that wait for approval first, and how many there are.

    Parameters
    ----------
    text : part of the id or a name; empty: all
    state : ``pending``, ``approved``, ``rejected``, ``withdrawn`` or ``disabled``; empty: all

    Raises
    ------
    ForbiddenError
        The account may not manage clients.
    """
    _require(connection, administrator)
    conditions: list[ColumnElement[bool]] = []
    if text:
        named = (_COLUMNS.client_id, _COLUMNS.name_zh, _COLUMNS.name_en)
        conditions.append(or_(*(column.icontains(text, autoescape=True) for column in named)))
    if state == "disabled":
        conditions.append(_COLUMNS.disabled)
    elif state:
        conditions += [_COLUMNS.status == state, ~_COLUMNS.disabled]
    total = connection.execute(select(func.count()).select_from(tables.client).where(*conditions)).scalar_one()
    names = ListedClient.__dataclass_fields__
    rows = connection.execute(
        select(*(_COLUMNS[name] for name in names))
        .where(*conditions)
        .order_by((_COLUMNS.status == "pending").desc(), _COLUMNS.client_id)
        .offset(offset)
        .limit(limit)
    )
    return [ListedClient(*row) for row in rows], int(total)


def find_client_registration(connection: Connection, administrator: Account, client_id: str) -> ClientRegistration:
    """Return one registration, a disabled one too.

    Raises
    ------
    ForbiddenError, NotFoundError
        The account may not manage clients, or there is no such client.
    """
    _require(connection, administrator)
    client = any_registration(connection, client_id)
    if client is None:
        raise NotFoundError("There is no such client")
    row = connection.execute(
        select(_COLUMNS.disabled, _COLUMNS.created_at, _COLUMNS.decided_by, _COLUMNS.decided_at).where(
            _COLUMNS.client_id == client_id
        )
    ).one()
    return ClientRegistration(client, described(client), *row)


def approve(connection: Connection, administrator: Account, client_id: str, *, scope: str, seen: str) -> None:
    """Approve a registration as it was shown, with these scopes.

    Raises
    ------
    ForbiddenError, NotFoundError, ConflictError, InvalidRequestError
        See `client_approval.approve_client`.
    """
    _require(connection, administrator)
    client_approval.approve_client(connection, client_id, by=administrator.name, scope=scope, seen=seen)


def reject(connection: Connection, administrator: Account, client_id: str) -> None:
    """Reject a registration; its tokens stop.

    Raises
    ------
    ForbiddenError, NotFoundError, ConflictError
        Not allowed, absent, or one of our own apps: those can be disabled.
    """
    _require(connection, administrator)
    client = any_registration(connection, client_id)
    if client is not None and client.first_party:
        raise ConflictError("An app of our own cannot be rejected; disable it")
    client_approval.reject_client(connection, client_id, by=administrator.name)


def set_disabled(connection: Connection, administrator: Account, client_id: str, *, disabled: bool) -> None:
    """Disable a client and revoke its tokens, or enable it again.

    Raises
    ------
    ForbiddenError, NotFoundError
        Not allowed, or absent.
    """
    _require(connection, administrator)
    client_approval.disable_client(connection, client_id, by=administrator.name, disabled=disabled)


def register(connection: Connection, administrator: Account, wanted: Client) -> str | None:
    """Register a new client; an existing one is left as it is.

    Returns
    -------
    Its secret, which is kept nowhere, when it has one.

    Raises
    ------
    ForbiddenError, ConflictError, InvalidRequestError
        Not allowed, the id is taken, or something of the registration cannot be accepted.
    """
    _require(connection, administrator)
    if any_registration(connection, wanted.client_id) is not None:
        raise ConflictError("There is a client of this id")
    secret = new_opaque_token() if wanted.auth_method == SECRET else None
    if secret is not None:
        wanted = replace(wanted, secret_hash=generated_secret_hash(secret))
    save_client(connection, wanted)
    said = "registered by an administrator"
    event = SecurityEvent(
        "client-registration", SUCCESS, account=administrator.name, client_id=wanted.client_id, reason=said
    )
    record(connection, event)
    return secret


def _require(connection: Connection, administrator: Account) -> None:
    if MANAGE_CLIENTS not in own_rights(connection, administrator).permissions:
        raise ForbiddenError(f"This needs the permission {MANAGE_CLIENTS}")
