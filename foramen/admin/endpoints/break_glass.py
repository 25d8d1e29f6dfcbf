"""`/apps/admin/break-glass`: emergency accesses that wait for review, those that were reviewed, judging and ending."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import quote

from sqlalchemy import Connection
from starlette.responses import Response

from foramen.admin.belonging import belonging
from foramen.admin.endpoints.delegations import read_id
from foramen.admin.layout import confirm, done, render, told
from foramen.admin.page import MANAGE_INSTITUTIONS, Call
from foramen.identity.database import utc_now
from foramen.identity.people.accounts import Account
from foramen.identity.rights import break_glass
from foramen.identity.rights.break_glass import VERDICTS, BreakGlassCase
from foramen.kernel.audit_event import break_glass_policy
from foramen.kernel.errors import ConflictError, ForbiddenError, InvalidRequestError

_ABSENT = "There is no such emergency access"
_MOST = 200


@dataclass(frozen=True, slots=True)
class ListedCase:
    """An occasion and what a reviewer has to know of it now; `arranged`: with the reviewer's own doing."""

    case: BreakGlassCase
    in_force: bool
    overdue: bool
    own: bool
    arranged: bool = False


async def break_glass_page(call: Call) -> Response:
    """List what waits for review, the oldest first; or, with `all`, what there was, the newest first."""
    everything = bool(call.query.get("all"))

    def work(connection: Connection, administrator: Account) -> list[BreakGlassCase]:
        if everything:
            return break_glass.list_cases(connection, administrator, limit=_MOST)
        return break_glass.list_unreviewed(connection, administrator)

    cases = await call.run(work)
    return render(
        call,
        "break_glass.html",
        cases=[_listed(call, case, utc_now()) for case in cases],
        everything=everything,
        reasons=_reasons(call),
        most=_MOST,
    )


async def case_page(call: Call) -> Response:
    """Show one occasion, and the form that judges it."""
    return await _case_page(call)


async def judge(call: Call) -> Response:
    """Judge an occasion that is over."""
    case_id = read_id(call, _ABSENT)
    verdict, note = call.form.get("verdict", ""), call.form.get("note", "")
    try:
        wall = await _wall(call, case_id)
        await call.run(
            lambda connection, administrator: break_glass.review(
                connection, administrator, case_id, verdict, note, wall=wall
            )
        )
    except (InvalidRequestError, ConflictError) as error:
        return await _case_page(call, status=error.status, problem=told(call, error))
    return done("/break-glass", "break_glass_reviewed")


async def _wall(call: Call, case_id: uuid.UUID) -> break_glass.Wall:
    """Ask the record whose patient it was, where that decides: institutions divide it, and the reviewer is of one."""
    institutions, managed_by = call.env.settings.institutions, None
    if institutions != "shared" and not call.may(MANAGE_INSTITUTIONS):
        found = await _find(call, case_id)
        managing = await belonging(call.env, f"Patient/{quote(found.patient)}")
        managed_by = next(iter(managing or ()), None)
    return break_glass.Wall(institutions, managed_by)


async def ask_end(call: Call) -> Response:
    """Ask before an emergency access ends."""
    found = await _find(call, read_id(call, _ABSENT))
    return confirm(
        call,
        question=call.t["break_glass_end_question"].format(name=found.account),
        explanation=call.t["break_glass_end_explanation"],
        action=call.t["break_glass_end"],
        back=f"/break-glass/{found.id}",
    )


async def end(call: Call) -> Response:
    """End an emergency access now; tokens that carry it are revoked."""
    case_id = read_id(call, _ABSENT)

    def work(connection: Connection, administrator: Account) -> None:
        found = break_glass.find_case(connection, administrator, case_id)
        if found.account == administrator.name:
            raise ForbiddenError("The own emergency access is ended on its own page")
        break_glass.end(connection, administrator, case_id, address=None)

    await call.run(work)
    return done(f"/break-glass/{case_id}", "break_glass_ended")


async def _case_page(call: Call, *, status: int = 200, problem: str = "") -> Response:
    case_id = read_id(call, _ABSENT)

    def work(connection: Connection, administrator: Account) -> tuple[BreakGlassCase, bool]:
        case = break_glass.find_case(connection, administrator, case_id)
        return case, administrator.name in break_glass.arranged_by(connection, case)

    found, arranged = await call.run(work)
    return render(
        call,
        "break_glass_case.html",
        status=status,
        problem=problem,
        found=replace(_listed(call, found, utc_now()), arranged=arranged),
        reasons=_reasons(call),
        verdicts=VERDICTS,
        policy=break_glass_policy(str(found.id)),
    )


async def _find(call: Call, case_id: uuid.UUID) -> BreakGlassCase:
    return await call.run(lambda connection, administrator: break_glass.find_case(connection, administrator, case_id))


def _listed(call: Call, case: BreakGlassCase, now: datetime) -> ListedCase:
    within = timedelta(hours=call.env.settings.break_glass_review_h)
    return ListedCase(case, case.in_force(now), case.overdue(now, within), case.account == call.account.name)


def _reasons(call: Call) -> dict[str, str]:
    return {code: words[call.language] for code, words in break_glass.reason_codes().items()}
