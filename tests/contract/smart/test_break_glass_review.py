"""Emergency access is reviewed by others, and somebody is told at once. All data SYNTHETIC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from sqlalchemy import exc
from typer.testing import CliRunner

from foramen.cli import app as cli
from foramen.identity.app import IdentityService
from foramen.identity.database import transaction
from foramen.identity.people.accounts import Account, require_account
from foramen.identity.people.password_links import make_link
from foramen.identity.rights.administration import create_account
from foramen.identity.rights.break_glass import (
    JUSTIFIED,
    UNJUSTIFIED,
    Wall,
    end,
    find_case,
    list_cases,
    list_unreviewed,
    review,
)
from foramen.identity.rights.break_glass_alerts import BreakGlassAlerts, checked_url
from foramen.identity.rights.permissions import GRANT
from foramen.kernel.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from foramen.kernel.settings import Settings, get_settings
from tests.contract.smart.break_glass_people import (  # noqa: F401 - fixtures of every test here
    SHARED,
    TEXT,
    break_glass,
    cases,
    clean_,
    decide,
    emergency,
    end_as,
    events,
    people_,
    revoked,
    signed_in,
    tokens,
)
from tests.contract.smart.conftest import PASSWORD, Smart

pytestmark = pytest.mark.requirement("identity#break-glass")


# Review


async def test_reviewers_see_their_institution_and_judge_once(smart: Smart):
    await emergency(smart)
    await emergency(smart, "p2", "zoe")
    anna, zoe = (next(case.id for case in cases(smart) if case.account == name) for name in ("anna", "zoe"))
    with transaction(smart.database_url) as connection:
        head, south, root, bo = (require_account(connection, name) for name in ("head", "south", "root", "bo"))
        assert [case.id for case in list_unreviewed(connection, head)] == [anna]
        assert [case.id for case in list_unreviewed(connection, south)] == [zoe]
        assert [case.id for case in list_unreviewed(connection, root)] == [anna, zoe]
        assert [case.id for case in list_cases(connection, root, limit=1)] == [zoe]
        assert find_case(connection, head, anna).reason == TEXT
        for reader in (
            lambda: find_case(connection, head, zoe),
            lambda: review(connection, head, zoe, JUSTIFIED, wall=SHARED),
        ):
            with pytest.raises(NotFoundError):
                reader()
        for denied in (
            lambda: list_unreviewed(connection, bo),
            lambda: list_cases(connection, bo),
            lambda: find_case(connection, bo, anna),
            lambda: review(connection, bo, anna, JUSTIFIED, wall=SHARED),
        ):
            with pytest.raises(ForbiddenError):
                denied()
        with pytest.raises(ConflictError):
            review(connection, head, anna, JUSTIFIED, wall=SHARED)  # still in force
        for verdict, note in (("fine", ""), (UNJUSTIFIED, "  "), (JUSTIFIED, "x" * 501)):
            with pytest.raises(InvalidRequestError):
                review(connection, head, anna, verdict, note, wall=SHARED)
        assert end(connection, head, anna).ended_by == "head"
        done = review(connection, head, anna, UNJUSTIFIED, "SYNTHETIC note", wall=SHARED)
        assert (done.verdict, done.reviewed_by, done.note) == (UNJUSTIFIED, "head", "SYNTHETIC note")
        with pytest.raises(ConflictError):
            review(connection, root, anna, JUSTIFIED, wall=SHARED)
        assert list_unreviewed(connection, head) == []
        assert [case.id for case in list_cases(connection, head)] == [anna]
    event = events(smart, "break-glass-review")[-1]
    assert (event["agent"][0]["altId"], event["outcomeDesc"]) == ("head", "unjustified")
    assert "SYNTHETIC note" not in json.dumps(event)


async def test_nobody_reviews_the_own(smart: Smart):
    """A physician who became an administrator: the cases stay the own."""
    await emergency(smart)
    smart.execute("UPDATE identity.account SET role = 'system-administrator' WHERE name = 'anna'")
    smart.execute("UPDATE identity.break_glass SET until = now()")
    try:
        with transaction(smart.database_url) as connection:
            anna = require_account(connection, "anna")
            case = list_unreviewed(connection, anna)[0]
            with pytest.raises(ForbiddenError):
                review(connection, anna, case.id, JUSTIFIED, wall=SHARED)
        with pytest.raises(exc.IntegrityError):  # nor is it stored, whoever writes it
            smart.execute(
                "UPDATE identity.break_glass SET reviewed_by = 'anna', reviewed_at = now(), verdict = 'justified'"
            )
    finally:
        smart.execute("UPDATE identity.account SET role = 'physician' WHERE name = 'anna'")


def _reviewed(smart: Smart, name: str, wall: Wall = SHARED) -> None:
    with transaction(smart.database_url) as connection:
        review(connection, require_account(connection, name), cases(smart)[0].id, JUSTIFIED, wall=wall)


async def test_who_granted_the_permission_does_not_review_what_it_was_used_for(smart: Smart):
    decide(smart, "anna", GRANT, decided_by="head")
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET until = now()")
    with pytest.raises(ForbiddenError, match="arranged"):
        _reviewed(smart, "head")
    decide(smart, "anna", GRANT)  # somebody else's grant of later changes nothing
    with pytest.raises(ForbiddenError, match="arranged"):
        _reviewed(smart, "head")
    _reviewed(smart, "root")
    assert cases(smart)[0].reviewed_by == "root"


async def test_a_grant_of_later_does_not_count(smart: Smart):
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET until = now()")
    decide(smart, "anna", GRANT, decided_by="head")
    _reviewed(smart, "head")
    decide(smart, "anna", GRANT)


@pytest.mark.parametrize("link_only", [True, False])
async def test_who_made_the_account_or_its_link_does_not_review(smart: Smart, link_only: bool):
    name = f"made-{link_only}".lower()
    maker = "root" if link_only else "head"
    with transaction(smart.database_url) as connection:
        by, head = require_account(connection, maker), require_account(connection, "head")
        create_account(connection, by, Account(name, "physician", institution="bg-north"), PASSWORD)
        if link_only:
            make_link(connection, head, name)
    decide(smart, name, GRANT)
    await emergency(smart, name=name)
    with transaction(smart.database_url) as connection:  # to end is not to judge
        assert end(connection, require_account(connection, "head"), cases(smart)[0].id).ended_by == "head"
    with pytest.raises(ForbiddenError, match="arranged"):
        _reviewed(smart, "head")
    with pytest.raises(NotFoundError):
        _reviewed(smart, "south")


async def test_where_institutions_divide_the_record_anothers_patient_is_reviewed_by_who_acts_everywhere(smart: Smart):
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET until = now()")
    for wall in (Wall("separate"), Wall("separate", "bg-south")):
        with pytest.raises(ForbiddenError, match="another institution's patient"):
            _reviewed(smart, "head", wall)
    _reviewed(smart, "root", Wall("separate", "bg-south"))


async def test_and_the_own_patients_by_the_own_institution(smart: Smart):
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET until = now()")
    _reviewed(smart, "head", Wall("separate", "bg-north"))


async def test_a_reviewer_ends_it_and_the_tokens_with_it(smart: Smart):
    browser = await emergency(smart)
    _, given = await tokens(smart, browser)
    case_id = cases(smart)[0].id
    with transaction(smart.database_url) as connection, pytest.raises(NotFoundError):
        end(connection, require_account(connection, "south"), case_id)
    end_as(smart, "head", case_id)
    assert revoked(smart, given["access_token"])


async def test_the_command_lists_ends_and_reviews(smart: Smart, monkeypatch: pytest.MonkeyPatch):
    await emergency(smart)
    smart.execute("UPDATE identity.break_glass SET started_at = now() - interval '73 h'")
    monkeypatch.setenv("FORAMEN_DATABASE_URL", smart.database_url)
    get_settings.cache_clear()

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(cli, ["break-glass", *arguments])
        return json.loads(result.stdout) if result.exit_code == 0 else result.exception

    try:
        listed = run("list", "--by", "head")
        case = listed[0]["id"]
        assert (listed[0]["overdue"], listed[0]["in_force"], listed[0]["patient"]) == (True, True, "p1")
        assert listed[0]["accesses"] == f"AuditEvent?policy=urn:uuid:{case}"
        assert "session_digest" not in listed[0]
        assert isinstance(run("list", "--by", "bo"), ForbiddenError)
        assert isinstance(run("review", case, "--by", "head", "--verdict", "justified"), ConflictError)
        assert run("end", case, "--by", "head")["in_force"] is False
        assert run("review", case, "--by", "head", "--verdict", "justified")["verdict"] == "justified"
        assert run("list", "--by", "head") == []
        assert run("list", "--all", "--by", "head")[0]["overdue"] is False
    finally:
        get_settings.cache_clear()


# The alert


@contextmanager
def receiver(*answers: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real receiver of alerts on loopback that answers one status after the other; gives its URL and what it got."""
    told: list[dict[str, Any]] = []
    left = iter(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(next(left))
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_the_alert_is_told_until_it_is_taken(smart: Smart):
    await emergency(smart)
    assert smart.execute("SELECT next_attempt_at FROM identity.break_glass_alert")[0][0] is None, "nobody to tell"
    smart.execute("UPDATE identity.break_glass_alert SET next_attempt_at = now()")
    with receiver(503, 302, 200) as (url, told):
        http = httpx.AsyncClient(trust_env=False)
        alerts = BreakGlassAlerts(smart.service._database, http, url)
        for attempt in range(3):
            assert await alerts.deliver_once() == (attempt == 2)
            row = smart.execute("SELECT * FROM identity.break_glass_alert")[0]
            assert row.attempts == attempt + 1
            if attempt < 2:
                assert await alerts.deliver_once() == 0, "not before its time"
                assert (row.delivered_at, row.next_attempt_at is None) == (None, False)
                smart.execute("UPDATE identity.break_glass_alert SET next_attempt_at = now()")
        assert row.delivered_at is not None
        assert await alerts.deliver_once() == 0
        await http.aclose()
    assert len(told) == 3, "redirects are not followed"
    case = cases(smart)[0]
    assert {one["id"] for one in told} == {str(case.id)}
    assert set(told[0]) == {"event", "id", "account", "institution", "reason", "started", "until"}
    assert "p1" not in json.dumps(told)
    assert "unconscious" not in json.dumps(told)


async def test_with_a_url_the_alert_is_due_at_once(smart: Smart):
    settings = smart.settings.model_copy(update={"break_glass_alert_url": "http://127.0.0.1:9/hook"})
    browser = await signed_in(smart)
    env = smart.service._env
    object.__setattr__(env, "settings", settings)
    try:
        await break_glass(browser)
    finally:
        object.__setattr__(env, "settings", smart.settings)
    assert smart.execute("SELECT next_attempt_at FROM identity.break_glass_alert")[0][0] is not None


@pytest.mark.parametrize("url", ["ftp://x/", "https://", "alerts.example.org", "https://x/#y"])
def test_a_url_that_is_none_stops_the_start(smart: Smart, url: str):
    with pytest.raises(InvalidRequestError):
        IdentityService(smart.settings.model_copy(update={"break_glass_alert_url": url}), smart.database_url)
    assert checked_url("https://alerts.example.org/hook") is not None
    assert Settings(break_glass_alert_url=None).break_glass_alert_url is None
