"""`/apps/admin/delegations`: what is lent by whom to whom (账号借用), and ending it."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.admin.layout import Paging, confirm, done, page_number, render
from foramen.admin.page import Call
from foramen.identity.people.accounts import Account
from foramen.identity.policy import table
from foramen.identity.rights.delegations import Delegation
from foramen.identity.rights.grant_administration import end_loan, find_loan, search_loans
from foramen.kernel.errors import NotFoundError


async def delegations_page(call: Call) -> Response:
    """List loans."""
    number, query = page_number(call), call.query

    def work(connection: Connection, administrator: Account) -> tuple[list[Delegation], int]:
        first = Paging(number, 0)
        return search_loans(
            connection,
            administrator,
            account=query.get("account", "")[:64],
            ended=bool(query.get("ended")),
            offset=first.offset,
            limit=first.size,
        )

    found, total = await call.run(work)
    return render(call, "delegations.html", loans=found, shown=Paging(number, total))


async def ask_end(call: Call) -> Response:
    """Ask before a loan ends."""
    loan = read_id(call, "There is no such loan")
    found = await call.run(lambda connection, administrator: find_loan(connection, administrator, loan))
    return confirm(
        call,
        question=call.t["end_loan_question"].format(
            permission=table("permissions").get(found.permission, {}).get(call.language, found.permission),
            lender=found.lender,
            borrower=found.borrower,
        ),
        explanation=call.t["end_loan_explanation"],
        action=call.t["end_loan_action"],
        back="/delegations",
    )


async def end(call: Call) -> Response:
    """End a loan."""
    loan = read_id(call, "There is no such loan")
    await call.run(lambda connection, administrator: end_loan(connection, administrator, loan))
    return done("/delegations", "loan_ended")


def read_id(call: Call, absent: str) -> uuid.UUID:
    """Read the `id` of a path.

    Raises
    ------
    NotFoundError
        It is no UUID: there is no such thing.
    """
    try:
        return uuid.UUID(call.part("id"))
    except ValueError as error:
        raise NotFoundError(absent) from error
