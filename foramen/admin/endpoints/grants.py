"""`/apps/admin/permissions`: single grants and withdrawals in force, those of one account, and the role matrix."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.admin.layout import Paging, Undo, confirm, done, page_number, render, told
from foramen.admin.page import GRANT_PERMISSIONS, Call
from foramen.identity.database import utc_now
from foramen.identity.people.accounts import Account
from foramen.identity.policy import evaluate, table
from foramen.identity.rights.administration import change, decide, visible_account
from foramen.identity.rights.attention import SOON
from foramen.identity.rights.grant_administration import revert_change, search_changes
from foramen.identity.rights.permissions import (
    GRANT,
    WITHDRAW,
    PermissionChange,
    Rights,
    all_changes,
    check_occasion,
    current_changes,
    own_rights,
    rights_of,
)
from foramen.identity.rights.roles import ROLES
from foramen.kernel.errors import ForbiddenError, InvalidRequestError

_EFFECTS = (GRANT, WITHDRAW)


@dataclass(frozen=True, slots=True)
class _Found:
    account: Account
    may_change: bool
    rights: Rights
    own: Rights
    changes: list[PermissionChange]
    past: list[PermissionChange]


async def permissions_page(call: Call) -> Response:
    """List what is granted or withdrawn singly and in force."""
    number, query = page_number(call), call.query
    before = utc_now() + SOON if query.get("ending") else None

    def work(connection: Connection, administrator: Account) -> tuple[list[PermissionChange], int]:
        first = Paging(number, 0)
        return search_changes(
            connection,
            administrator,
            account=query.get("account", "")[:64],
            permission=query.get("permission", ""),
            before=before,
            offset=first.offset,
            limit=first.size,
        )

    found, total = await call.run(work)
    return render(call, "permissions.html", changes=found, shown=Paging(number, total), choices=_choices(call))


async def account_permissions(call: Call) -> Response:
    """Show what an account may do, why, and the form that grants or withdraws."""
    return await _account(call)


async def _account(call: Call, *, status: int = 200, problem: str = "") -> Response:
    name = call.part("name")

    def work(connection: Connection, administrator: Account) -> _Found:
        account = visible_account(connection, administrator, GRANT_PERMISSIONS, name)
        return _Found(
            account,
            not decide(connection, administrator, GRANT_PERMISSIONS, account),
            rights_of(connection, account),
            own_rights(connection, account),
            current_changes(connection, name),
            all_changes(connection, name)[:100],
        )

    found = await call.run(work)
    decided, permission = call.done, call.query.get("permission", "")
    effect = {"permission_granted": GRANT, "permission_withdrawn": WITHDRAW}.get(decided)
    # The words are typed by anybody: only what stands so can be taken back.
    undone = any((change.permission, change.effect) == (permission, effect) for change in found.changes)
    return render(
        call,
        "account_permissions.html",
        status=status,
        problem=problem,
        undo=Undo(f"/accounts/{name}/permissions/{permission}/revert", {"reason": call.t["undone"]})
        if undone
        else None,
        found=found,
        account=found.account,
        held=table("roles").get(found.account.role, []),
        choices=[(item, said) for item, said in _choices(call) if item in found.own.reachable],
        effects=[(effect, call.t[f"effect_{effect}"]) for effect in _EFFECTS],
    )


async def change_permission(call: Call) -> Response:
    """Grant or withdraw one permission, with reason and end."""
    name, form = call.part("name"), call.form
    permission, effect = form.get("permission", ""), form.get("effect", "")
    try:
        if effect not in _EFFECTS:
            raise InvalidRequestError("A permission is granted or withdrawn")
        until = _until(form.get("until", ""))
        await call.run(
            lambda connection, administrator: change(
                connection, administrator, name, permission, effect, reason=form.get("reason", "").strip(), until=until
            )
        )
    except InvalidRequestError as error:
        return await _account(call, status=error.status, problem=told(call, error))
    word = "permission_granted" if effect == GRANT else "permission_withdrawn"
    return done(f"/accounts/{name}/permissions", word, permission=permission)


async def ask_revert(call: Call) -> Response:
    """Ask before what was decided on a permission ends."""
    return await _ask(call)


async def _ask(call: Call, problem: str = "") -> Response:
    name, permission = call.part("name"), call.part("permission")

    def work(connection: Connection, administrator: Account) -> None:
        account = visible_account(connection, administrator, GRANT_PERMISSIONS, name)
        if decide(connection, administrator, GRANT_PERMISSIONS, account):
            raise ForbiddenError("This account's permissions are for somebody else to decide")

    await call.run(work)
    known = table("permissions").get(permission, {})
    return confirm(
        call,
        question=call.t["revert_question"].format(permission=known.get(call.language, permission), name=name),
        explanation=call.t["revert_explanation"],
        action=call.t["revert_action"],
        back=f"/accounts/{name}/permissions",
        reason=True,
        problem=problem,
    )


async def revert(call: Call) -> Response:
    """End what was decided on a permission: the role alone counts again."""
    name, permission, reason = call.part("name"), call.part("permission"), call.form.get("reason", "").strip()
    try:
        check_occasion(reason, None, utc_now())
    except InvalidRequestError as error:
        return await _ask(call, told(call, error))
    await call.run(lambda connection, administrator: revert_change(connection, administrator, name, permission, reason))
    return done(f"/accounts/{name}/permissions", "permission_reverted")


async def matrix(call: Call) -> Response:
    """Show which role has which permission, as the policy says it."""
    roles, grantable = table("roles"), table("grantable")
    lendable = evaluate("permissions.rights_tables", {})["lendable"]
    rows = [
        {
            "name": name,
            "identified": about["identified"],
            "lendable": name in lendable,
            "scopes": about["scopes"],
            "cells": ["yes" if name in roles[role] else "single" if name in grantable[role] else "" for role in ROLES],
        }
        for name, about in sorted(table("permissions").items())
    ]
    return render(call, "matrix.html", rows=rows, roles=[call.t[f"role_{role}"] for role in ROLES])


def _choices(call: Call) -> list[tuple[str, str]]:
    return [(name, str(about[call.language])) for name, about in sorted(table("permissions").items())]


def _until(text: str) -> datetime | None:
    """Read the last day of a permission; it counts to the end of that day (UTC).

    Raises
    ------
    InvalidRequestError
        It is no day.
    """
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        return day + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError("The end is a day, such as 2027-01-31") from error
