"""The policy asked on a page answers as it decides; the system page shows settings and keys, and no secret."""

from __future__ import annotations

import html
import re

from foramen.identity.accounts import require_account
from foramen.identity.database import transaction
from foramen.identity.permissions import WITHDRAW, change_permission
from tests.contract.admin.conftest import Admin

PAGE = "/apps/admin/policies"


def results(text: str) -> dict[str, str]:
    """Rule → result of the table of a decision."""
    rows = re.findall(r'<th scope="row">([^<]+)</th>\s*<td><span class="tag[^"]*">([^<]+)</span>', text)
    return {html.unescape(rule): result for rule, result in rows}


async def test_why_somebody_may_and_somebody_may_not(admin: Admin):
    browser = await admin.signed_in("boss")
    may = (await browser.open(f"{PAGE}?account=north-doctor&type=Observation&action=r")).text
    assert "Allowed" in may
    assert results(may)["Permission"] == "holds"
    may_not = (await browser.open(f"{PAGE}?account=builder&type=Observation&action=r")).text
    assert "Refused" in may_not
    assert results(may_not)["Permission"] == "refuses"


async def test_a_withdrawn_permission_is_named(admin: Admin):
    admin.restore()
    browser = await admin.signed_in("boss")
    asked = f"{PAGE}?account=north-doctor&type=CarePlan&action=c"
    assert "Allowed" in (await browser.open(asked)).text
    with transaction(admin.database_url) as connection:
        account = require_account(connection, "north-doctor")
        change_permission(connection, account, "plan-care", WITHDRAW, reason="SYNTHETIC", decided_by="boss")
    try:
        page = (await browser.open(asked)).text
        assert "Refused" in page
        assert results(page)["Withdrawn permission"] == "refuses"
    finally:
        admin.restore()


async def test_another_institutions_people_cannot_be_asked_about(admin: Admin):
    browser = await admin.signed_in("north-admin")
    assert (await browser.open(f"{PAGE}?account=north-doctor&type=Patient&action=r")).status_code == 200
    for name in ("south-doctor", "nobody"):
        answer = await browser.open(f"{PAGE}?account={name}&type=Patient&action=r")
        assert answer.status_code == 404
        assert not results(answer.text)


async def test_a_question_that_is_none_is_refused(admin: Admin):
    browser = await admin.signed_in("boss")
    answer = await browser.open(f"{PAGE}?account=north-doctor&type=<i>&action=x")
    assert answer.status_code == 400
    assert "<i>" not in answer.text


async def test_files_and_tests_of_the_policy(admin: Admin):
    browser = await admin.signed_in("boss")
    assert "package foramen.decision" in (await browser.open(f"{PAGE}/files/decision.rego")).text
    for absent in ("nothing.rego", "..%2F..%2Ftables.py"):
        assert (await browser.open(f"{PAGE}/files/{absent}")).status_code == 404
    tests = (await browser.open(f"{PAGE}/tests")).text
    assert re.search(r"\d+ tests, 0 failed", tests)


async def test_the_system_page_shows_no_secret(admin: Admin):
    browser = await admin.signed_in("boss")
    page = (await browser.open("/apps/admin/health")).text
    assert "FORAMEN_PUBLIC_URL" in page
    assert "not known" in page  # no web process answers in this test: that is said, and no part is called ready
    for file in (admin.settings.home / "secrets").iterdir():
        if file.is_file():
            content = file.read_text(encoding="utf-8", errors="ignore").strip()
            assert not content or content not in page
    assert admin.service.environment.csrf_secret not in page


async def test_the_password_of_the_database_is_hidden(admin: Admin):
    settings = admin.settings
    before = settings.database_url
    object.__setattr__(settings, "database_url", "postgresql://u:SYNTHETIC-secret@127.0.0.1/x")
    try:
        page = (await (await admin.signed_in("boss")).open("/apps/admin/health")).text
        assert "SYNTHETIC-secret" not in page
        assert "••••" in page
    finally:
        object.__setattr__(settings, "database_url", before)
