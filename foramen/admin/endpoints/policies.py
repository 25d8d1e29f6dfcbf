"""`/apps/admin/policies`: the rules as they are in force, their tests, and a decision asked and explained."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.admin.layout import render, told
from foramen.admin.page import MANAGE_ACCOUNTS, Call
from foramen.identity.people.accounts import Account
from foramen.identity.policy import PolicyTest, run_tests, sources
from foramen.identity.rights.administration import visible_account
from foramen.identity.rights.explanation import Explanation, explain
from foramen.kernel.errors import InvalidRequestError, NotFoundError

ACTIONS = ("r", "s", "c", "u", "d")
_TEST = "_test.rego"


async def policies_page(call: Call) -> Response:
    """Show the policy files; with an account in the query, what the policy decides and why."""
    answer, problem, status = None, "", 200
    if call.query.get("account"):
        try:
            answer = await _decision(call)
        except (InvalidRequestError, NotFoundError) as error:
            problem, status = told(call, error), error.status
    files = sources()
    return render(
        call,
        "policies.html",
        status=status,
        problem=problem,
        answer=answer,
        actions=ACTIONS,
        rules={name: text for name, text in files.items() if not name.endswith(_TEST)},
        tests={name.replace(_TEST, ".rego"): name for name in files if name.endswith(_TEST)},
    )


async def tests_page(call: Call) -> Response:
    """Show how the tests beside the policy files end."""
    found = await asyncio.to_thread(outcomes)
    failed = [one for one in found if not one.passed]
    return render(call, "policy_tests.html", outcomes=found, failed=failed)


@cache
def outcomes() -> tuple[PolicyTest, ...]:
    """Run the tests, once in a process: its policy stays, and hashing of passwords waits for the same threads."""
    return tuple(run_tests())


async def policy_page(call: Call) -> Response:
    """Show one policy file as it is in force."""
    name = call.part("file")
    files = sources()
    if name not in files:
        raise NotFoundError("There is no such policy file")
    return render(call, "policy.html", file=name, source=files[name])


async def _decision(call: Call) -> Explanation:
    """Ask the policy as the account's tokens would be judged now; accounts out of reach are answered like none."""
    asked: dict[str, Any] = {name: call.query.get(name, "").strip() for name in ("account", "type", "action")}
    patient, app_patient = (_id(call.query.get(name, "")) for name in ("patient", "app_patient"))
    scopes = call.query.get("scopes", "").strip() or None

    def work(connection: Connection, administrator: Account) -> Explanation:
        account = visible_account(connection, administrator, MANAGE_ACCOUNTS, asked["account"])
        return explain(
            connection,
            account,
            asked["type"],
            asked["action"],
            patient=patient,
            scopes=scopes,
            app_patient=app_patient,
        )

    return await call.run(work)


def _id(typed: str) -> str | None:
    return typed.strip().removeprefix("Patient/") or None
