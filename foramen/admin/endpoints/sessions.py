"""`/apps/admin/sessions` and `/authorizations`: who is signed in, what apps hold for people, and ending both."""

from __future__ import annotations

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.admin.endpoints.delegations import read_id
from foramen.admin.layout import Paging, confirm, done, page_number, render
from foramen.admin.page import MANAGE_ACCOUNTS, Call
from foramen.identity.people.accounts import Account
from foramen.identity.people.browser_name import browser_name
from foramen.identity.rights.administration import require, visible_account
from foramen.identity.rights.session_administration import (
    AccountSession,
    Authorization,
    end_all_sessions,
    end_session_of,
    find_authorization,
    revoke_authorization,
    search_authorizations,
    search_sessions,
)
from foramen.identity.text import explain_scope


async def sessions_page(call: Call) -> Response:
    """List live sessions: whose, since when, from where, with which factors, which apps were opened with it."""
    number, account = page_number(call), call.query.get("account", "")[:64]

    def work(connection: Connection, administrator: Account) -> tuple[list[AccountSession], int]:
        first = Paging(number, 0)
        return search_sessions(
            connection,
            administrator,
            account=account,
            idle_s=call.env.settings.session_idle_s,
            offset=first.offset,
            limit=first.size,
        )

    found, total = await call.run(work)
    return render(
        call,
        "sessions.html",
        sessions=found,
        shown=Paging(number, total),
        browser_name=browser_name,
        this_session=call.session.session_digest,
    )


async def end_session(call: Call) -> Response:
    """End one session."""
    chosen = call.form.get("session", "")
    await call.run(lambda connection, administrator: end_session_of(connection, administrator, chosen))
    return done("/sessions", "session_ended")


async def ask_end_all(call: Call) -> Response:
    """Ask before all access of an account ends."""
    name = call.part("name")

    def work(connection: Connection, administrator: Account) -> None:
        account = visible_account(connection, administrator, MANAGE_ACCOUNTS, name)
        require(connection, administrator, MANAGE_ACCOUNTS, account)

    await call.run(work)
    return confirm(
        call,
        question=call.t["end_all_question"].format(name=name),
        explanation=call.t["end_all_explanation"],
        action=call.t["end_all_action"],
        back=f"/accounts/{name}",
    )


async def end_all(call: Call) -> Response:
    """End all sessions and tokens of an account."""
    name = call.part("name")
    await call.run(lambda connection, administrator: end_all_sessions(connection, administrator, name))
    return done(f"/accounts/{name}", "all_sessions_ended")


async def authorizations_page(call: Call) -> Response:
    """List what apps hold for people now."""
    number, query = page_number(call), call.query

    def work(connection: Connection, administrator: Account) -> tuple[list[Authorization], int]:
        first = Paging(number, 0)
        return search_authorizations(
            connection,
            administrator,
            account=query.get("account", "")[:64],
            client_id=query.get("client", ""),
            offset=first.offset,
            limit=first.size,
        )

    found, total = await call.run(work)
    return render(
        call,
        "authorizations.html",
        authorizations=found,
        shown=Paging(number, total),
        explain=lambda scope: explain_scope(scope, call.language),
    )


async def ask_revoke(call: Call) -> Response:
    """Ask before what an app holds is revoked."""
    family = read_id(call, "There is no such authorization")
    found = await call.run(lambda connection, administrator: find_authorization(connection, administrator, family))
    return confirm(
        call,
        question=call.t["revoke_question"].format(app=found.client_id, name=found.account),
        explanation=call.t["revoke_explanation"],
        action=call.t["revoke_action"],
        back="/authorizations",
    )


async def revoke(call: Call) -> Response:
    """Revoke what an app holds for a person."""
    family = read_id(call, "There is no such authorization")
    await call.run(lambda connection, administrator: revoke_authorization(connection, administrator, family))
    return done("/authorizations", "authorization_revoked")
