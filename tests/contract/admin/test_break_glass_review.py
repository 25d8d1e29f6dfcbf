"""Emergency accesses on the review pages: seen by who may review them, judged once, never by oneself."""

from __future__ import annotations

import uuid

import pytest

from foramen.identity.database import transaction, utc_now
from foramen.identity.opaque_tokens import digest
from foramen.identity.people.sessions import start_session
from tests.builders.browser import forms_of
from tests.contract.admin.conftest import Admin

WORDS = "SYNTHETIC: unconscious, no relative reachable"


def occasion(admin: Admin, account: str, institution: str | None, *, over: bool = True, days: int = 0) -> str:
    """An emergency access as the sign-in service writes it."""
    case_id = str(uuid.uuid4())
    session = None
    if not over:
        with transaction(admin.database_url) as connection:
            session = digest(start_session(connection, account, None, utc_now()))
    admin.execute(
        "INSERT INTO identity.break_glass (id, account, institution, session_digest, patient, reason_code, reason, "
        "started_at, until) VALUES (:id, :account, :institution, :session, 'syn-p', :code, :reason, "
        "now() - make_interval(days => :days), now() + interval '1 hour')",
        id=case_id,
        account=account,
        institution=institution,
        session=session,
        code=next(iter(codes())),
        reason=WORDS,
        days=days,
    )
    return case_id


def codes() -> dict:
    from foramen.identity.rights.break_glass import reason_codes

    return reason_codes()


def verdict(admin: Admin, case_id: str) -> tuple:
    return tuple(
        admin.execute("SELECT verdict, reviewed_by, note FROM identity.break_glass WHERE id = :id", id=case_id)[0]
    )


async def judge(browser, case_id: str, **values: str):
    await browser.open(f"/apps/admin/break-glass/{case_id}")
    index = next(i for i, form in enumerate(forms_of(browser.page.text)) if form.action.endswith(case_id))
    return await browser.submit(index, **values)


async def test_a_reviewer_reads_the_words_and_judges_once(admin: Admin):
    case_id = occasion(admin, "north-doctor", "north", days=30)
    browser = await admin.signed_in("boss")
    listed = (await browser.open("/apps/admin/break-glass")).text
    assert case_id in listed
    assert "review overdue" in listed
    assert WORDS not in listed
    assert WORDS in (await browser.open(f"/apps/admin/break-glass/{case_id}")).text
    assert (await judge(browser, case_id, verdict="unjustified")).status_code == 400  # it says why
    assert verdict(admin, case_id) == (None, None, None)
    done = await judge(browser, case_id, verdict="unjustified", note="nothing in the chart\nof that night")
    assert "The verdict is kept." in done.text
    assert verdict(admin, case_id)[:2] == ("unjustified", "boss")
    assert case_id not in (await browser.open("/apps/admin/break-glass")).text
    assert case_id in (await browser.open("/apps/admin/break-glass?all=1")).text
    page = await browser.open(f"/apps/admin/break-glass/{case_id}")
    assert not [form for form in forms_of(page.text) if form.action.endswith(case_id)]


async def test_another_institutions_is_answered_like_none(admin: Admin):
    case_id = occasion(admin, "south-doctor", "south")
    browser = await admin.signed_in("north-admin")
    assert case_id not in (await browser.open("/apps/admin/break-glass")).text
    assert (await browser.open(f"/apps/admin/break-glass/{case_id}")).status_code == 404
    assert (await browser.open(f"/apps/admin/break-glass/{uuid.uuid4()}")).status_code == 404


async def test_nobody_judges_the_own_one(admin: Admin):
    case_id = occasion(admin, "north-admin", "north")
    browser = await admin.signed_in("north-admin")
    page = await browser.open(f"/apps/admin/break-glass/{case_id}")
    assert "somebody else reviews it" in page.text
    csrf = forms_of(page.text)[0].fields["csrf"]
    answer = await browser.http.post(f"/apps/admin/break-glass/{case_id}", data={"csrf": csrf, "verdict": "justified"})
    assert answer.status_code == 403
    assert verdict(admin, case_id)[0] is None


async def test_one_in_force_is_ended_before_it_is_judged(admin: Admin):
    case_id = occasion(admin, "north-doctor", "north", over=False)
    browser = await admin.signed_in("boss")
    page = await browser.open(f"/apps/admin/break-glass/{case_id}")
    csrf = forms_of(page.text)[0].fields["csrf"]
    early = await browser.http.post(f"/apps/admin/break-glass/{case_id}", data={"csrf": csrf, "verdict": "justified"})
    assert early.status_code == 409
    await browser.open(f"/apps/admin/break-glass/{case_id}/end")
    index = next(i for i, form in enumerate(forms_of(browser.page.text)) if form.action.endswith("/end"))
    assert "has ended" in (await browser.submit(index)).text
    assert "The verdict is kept." in (await judge(browser, case_id, verdict="justified")).text


@pytest.mark.parametrize("name", ["north-doctor", "builder", "scientist"])
async def test_who_does_not_review_sees_nothing(admin: Admin, name: str):
    case_id = occasion(admin, "north-doctor", "north")
    answer = await (await admin.signed_in(name)).open(f"/apps/admin/break-glass/{case_id}")
    assert answer.status_code == 403
    assert WORDS not in answer.text
