"""What is done to one account with one button: disable and enable, unlock, second factor, password link, its history.

GET asks, POST does; each is one function of `foramen.identity` with its audit event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.admin.endpoints.accounts import link_shown
from foramen.admin.layout import confirm, done, render, told
from foramen.admin.page import MANAGE_ACCOUNTS, Call
from foramen.identity.audit_line import audit_line, kinds_of
from foramen.identity.database import utc_now
from foramen.identity.endpoints.record_reading import fhir_of
from foramen.identity.people.accounts import Account
from foramen.identity.people.password_links import make_link
from foramen.identity.rights import account_administration, administration
from foramen.identity.rights.administration import visible_account
from foramen.identity.rights.permissions import check_occasion
from foramen.kernel.errors import ConflictError, ForbiddenError, InvalidRequestError

Change = Callable[[Connection, Account], object]
_HISTORY = 100


async def _ask(call: Call, word: str, *, reason: bool = False, problem: str = "", harmless: bool = False) -> Response:
    """Ask about one account that is there; the texts are `WORD_question`, `_explanation`, `_action`."""
    name = call.part("name")
    await call.run(lambda connection, administrator: _changeable(connection, administrator, name))
    return confirm(
        call,
        question=call.t[f"{word}_question"].format(name=name),
        explanation=call.t[f"{word}_explanation"],
        action=call.t[f"{word}_action"],
        back=f"/accounts/{name}",
        reason=reason,
        problem=problem,
        harmless=harmless,
    )


def _changeable(connection: Connection, administrator: Account, name: str) -> Account:
    """Return an account that the policy lets the administrator change."""
    account = visible_account(connection, administrator, MANAGE_ACCOUNTS, name)
    administration.require(connection, administrator, MANAGE_ACCOUNTS, account)
    return account


async def _do(call: Call, change: Change, word: str) -> Response:
    await call.run(change)
    return done(f"/accounts/{call.part('name')}", word)


async def ask_disable(call: Call) -> Response:
    """Ask before an account is disabled."""
    return await _ask(call, "disable")


async def disable(call: Call) -> Response:
    """Disable an account; its sessions and tokens end."""
    name = call.part("name")
    return await _do(call, lambda c, by: administration.disable_account(c, by, name), "account_disabled")


async def ask_enable(call: Call) -> Response:
    """Ask before an account may act again."""
    return await _ask(call, "enable", harmless=True)


async def enable(call: Call) -> Response:
    """Let a disabled account act again."""
    name = call.part("name")
    return await _do(call, lambda c, by: administration.enable_account(c, by, name), "account_enabled")


async def unlock(call: Call) -> Response:
    """End the lock after failed passwords or codes."""
    name = call.part("name")
    return await _do(call, lambda c, by: account_administration.unlock(c, by, name), "account_unlocked")


async def ask_reset(call: Call) -> Response:
    """Ask before the second factors of an account are removed."""
    return await _ask(call, "reset", reason=True)


async def reset(call: Call) -> Response:
    """Remove all second factors of an account, for a lost or stolen device."""
    name, reason = call.part("name"), call.form.get("reason", "")
    try:
        check_occasion(reason, None, utc_now())
    except InvalidRequestError as error:
        return await _ask(call, "reset", reason=True, problem=told(call, error))
    return await _do(
        call, lambda c, by: account_administration.reset_factors(c, by, name, reason.strip()), "factors_reset"
    )


async def ask_link(call: Call) -> Response:
    """Ask before a link for a new password is made."""
    return await _ask(call, "link", harmless=True)


async def link(call: Call) -> Response:
    """Make a link with which the person sets a new password, and show it once."""
    name = call.part("name")
    try:
        token = await call.run(lambda connection, administrator: make_link(connection, administrator, name))
    except ConflictError as error:
        return await _ask(call, "link", problem=told(call, error))
    return link_shown(call, name, token, created=False)


async def history(call: Call) -> Response:
    """Show the audit events of an account, read from the record: what it did and what was done to it."""
    name = call.part("name")
    await call.run(lambda connection, administrator: visible_account(connection, administrator, MANAGE_ACCOUNTS, name))
    if not call.may("read-audit"):
        raise ForbiddenError("This needs the permission read-audit")
    common = [("_sort", "-date"), ("_count", str(_HISTORY))]
    found: dict[str, dict[str, Any]] = {}
    async with fhir_of(call.env, call.account, ("AuditEvent",)) as fhir:
        for asked in (("altid", name), ("entity-name:exact", name)):
            number = 0
            async for event in fhir.search_pages("AuditEvent", [asked, *common]):
                found[event["id"]] = event
                number += 1
                if number >= _HISTORY:
                    break
    events = sorted(found.values(), key=lambda event: str(event.get("recorded", "")), reverse=True)[:_HISTORY]
    lines = [(audit_line(event), kinds_of(event)) for event in events]
    return render(call, "history.html", name=name, lines=lines, most=_HISTORY)
