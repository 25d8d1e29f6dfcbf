"""`/apps/admin/accounts`: the list, one account, creating and changing it.

What is dangerous asks first (`account_actions`); what gives access needs a recent sign-in (route table).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.admin.belonging import belonging
from foramen.admin.layout import Paging, Undo, done, page_number, render, told
from foramen.admin.page import GRANT_PERMISSIONS, MANAGE_ACCOUNTS, MANAGE_INSTITUTIONS, READ_AUDIT, Call
from foramen.identity.opaque_tokens import new_opaque_token
from foramen.identity.people.accounts import Account
from foramen.identity.people.password_links import make_link
from foramen.identity.people.passwords import hash_password
from foramen.identity.people.second_factor import Enrolled, enrolled
from foramen.identity.rights.account_administration import change_account
from foramen.identity.rights.account_directory import (
    STATES,
    AccountFilter,
    ListedAccount,
    listed_account,
    search_accounts,
)
from foramen.identity.rights.administration import (
    Belongings,
    create_account,
    decide,
    links_of,
    reach,
    visible_account,
)
from foramen.identity.rights.delegations import Delegation, list_delegations
from foramen.identity.rights.institution_administration import visible_institutions
from foramen.identity.rights.institutions import Institution
from foramen.identity.rights.permissions import PermissionChange, Rights, current_changes, rights_of
from foramen.identity.rights.roles import ROLES
from foramen.kernel.errors import ConflictError, InvalidRequestError, UpstreamError

# What was done here and can be taken back: the other action of the pair.
_UNDO = {"account_disabled": "enable", "account_enabled": "disable"}
_TRY_AGAIN = (InvalidRequestError, ConflictError, UpstreamError)


@dataclass(frozen=True, slots=True)
class _Found:
    listed: ListedAccount
    may_change: bool
    enrolled: Enrolled
    rights: Rights
    changes: list[PermissionChange]
    loans: list[Delegation]
    institutions: dict[str, Institution]


async def accounts_page(call: Call) -> Response:
    """List accounts, filtered by part of the name, role, institution and state."""
    number, query = page_number(call), call.query
    wanted = AccountFilter(
        query.get("q", "")[:64], query.get("role", ""), query.get("institution", ""), query.get("state", "")
    )
    if wanted.state and wanted.state not in STATES:
        raise InvalidRequestError("There is no such state")

    def work(connection: Connection, administrator: Account) -> tuple[list[ListedAccount], int, list[Institution]]:
        first = Paging(number, 0)
        found, total = search_accounts(connection, administrator, wanted, offset=first.offset, limit=first.size)
        return found, total, visible_institutions(connection, administrator)

    found, total, institutions = await call.run(work)
    return render(
        call,
        "accounts.html",
        accounts=found,
        shown=Paging(number, total),
        roles=_roles(call),
        states=[(state, call.t[f"state_{state}"]) for state in STATES],
        institutions=_choices(call, institutions),
        institution_names=dict(_choices(call, institutions)),
    )


async def account_page(call: Call) -> Response:
    """Show one account: what it is, how it signs in, what it may do."""
    name = call.part("name")

    def work(connection: Connection, administrator: Account) -> _Found:
        account = visible_account(connection, administrator, MANAGE_ACCOUNTS, name)
        return _Found(
            listed_account(connection, account),
            not decide(connection, administrator, MANAGE_ACCOUNTS, account),
            enrolled(connection, name),
            rights_of(connection, account),
            current_changes(connection, name),
            [loan for loan in list_delegations(connection, name) if loan.ended_at is None],
            {item.id: item for item in visible_institutions(connection, administrator)},
        )

    found = await call.run(work)
    action = _UNDO.get(call.done)
    if found.listed.account.disabled != (action == "enable"):  # the word is typed by anybody: it was not done here
        action = None
    return render(
        call,
        "account.html",
        undo=Undo(f"/accounts/{name}/{action}", {}) if action else None,
        found=found,
        account=found.listed.account,
        institution_names=dict(_choices(call, list(found.institutions.values()))),
        may_grant=call.may(GRANT_PERMISSIONS),
        may_read_audit=call.may(READ_AUDIT),
    )


async def new_account_page(call: Call) -> Response:
    """Show the form of a new account."""
    return await _form(call, None)


async def new_account(call: Call) -> Response:
    """Create an account and show the link with which its person sets the password, once."""
    try:
        wanted = _wanted(call, call.form.get("name", ""))
        belongings = await _belongings(call, wanted)
        # Of a password that nobody knows: only the link opens the account. It takes long; no transaction waits for it.
        async with call.env.password_checks:
            password_hash = await asyncio.to_thread(hash_password, new_opaque_token())

        def work(connection: Connection, administrator: Account) -> str:
            create_account(connection, administrator, wanted, password_hash=password_hash, belongings=belongings)
            return make_link(connection, administrator, wanted.name)

        token = await call.run(work)
    except _TRY_AGAIN as error:
        return await _form(call, None, status=error.status, problem=told(call, error))
    return link_shown(call, wanted.name, token, created=True)


def link_shown(call: Call, name: str, token: str, *, created: bool) -> Response:
    """Show a link for setting a password: only here, it is not kept."""
    link = f"{call.env.settings.origin}/auth/set-password?token={token}"
    return render(call, "password_link.html", name=name, link=link, created=created)


async def edit_account_page(call: Call) -> Response:
    """Show the form that changes role, institution and links."""
    return await _form(call, call.part("name"))


async def edit_account(call: Call) -> Response:
    """Change role, institution and links."""
    name = call.part("name")
    try:
        now = await call.run(
            lambda connection, administrator: visible_account(connection, administrator, MANAGE_ACCOUNTS, name)
        )
        wanted = _wanted(call, name)
        belongings = await _belongings(call, wanted, now)
        await call.run(
            lambda connection, administrator: change_account(connection, administrator, wanted, belongings=belongings)
        )
    except _TRY_AGAIN as error:
        return await _form(call, name, status=error.status, problem=told(call, error))
    return done(f"/accounts/{name}", "account_changed")


def _wanted(call: Call, name: str) -> Account:
    """Read the account of a form."""
    form = call.form
    return Account(
        name,
        form.get("role", ""),
        practitioner=form.get("practitioner", "").removeprefix("Practitioner/") or None,
        patient=form.get("patient", "").removeprefix("Patient/") or None,
        institution=form.get("institution") or None,
    )


async def _belongings(call: Call, wanted: Account, now: Account | None = None) -> Belongings:
    """Ask the record for the persons that are new to an account; they have to be there.

    Whoever does not see all institutions is not told whether there is a Patient: the policy refuses both alike.
    """
    found: dict[str, frozenset[str]] = {}
    for reference in links_of(wanted):
        if now is not None and reference in links_of(now):
            continue
        institutions = await belonging(call.env, reference)
        kind = reference.partition("/")[0]
        if institutions is None and (kind == "Practitioner" or call.may(MANAGE_INSTITUTIONS)):
            raise InvalidRequestError(f"There is no such {kind} in the record")
        found[reference] = institutions or frozenset()
    return found


async def _form(call: Call, name: str | None, *, status: int = 200, problem: str = "") -> Response:
    """Render the form of a new account, or of the one named."""

    def work(
        connection: Connection, administrator: Account
    ) -> tuple[Account | None, list[Institution], list[str], bool]:
        institutions = visible_institutions(connection, administrator)
        account = visible_account(connection, administrator, MANAGE_ACCOUNTS, name) if name is not None else None
        inside = administrator.institution
        may = [
            role
            for role in ROLES
            if not decide(connection, administrator, MANAGE_ACCOUNTS, Account("", role, institution=inside))
        ]
        return account, institutions, may, reach(connection, administrator, MANAGE_ACCOUNTS).everywhere

    account, institutions, may, everywhere = await call.run(work)
    values: dict[str, Any] = {"account": account, "institutions": _choices(call, institutions)}
    values["roles"] = [(role, said) for role, said in _roles(call) if role in may]
    values["everywhere"] = everywhere
    return render(call, "account_form.html", status=status, problem=problem, **values)


def _roles(call: Call) -> list[tuple[str, str]]:
    return [(role, call.t[f"role_{role}"]) for role in ROLES]


def _choices(call: Call, institutions: list[Institution]) -> list[tuple[str, str]]:
    """Return institutions for a choice, in the page's language."""
    return [(item.id, item.name_zh if call.language == "zh" else item.name_en) for item in institutions]
