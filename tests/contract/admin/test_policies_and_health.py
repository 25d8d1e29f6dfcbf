"""The policy asked on a page answers as it decides; the system page shows settings and keys, and no secret."""

from __future__ import annotations

import html
import re

import pytest
from sqlalchemy import event

from foramen.admin.endpoints import policies
from foramen.identity.database import transaction, utc_now
from foramen.identity.people.accounts import require_account
from foramen.identity.policy import run_tests
from foramen.identity.rights.attention import attention
from foramen.identity.rights.break_glass import list_unreviewed
from foramen.identity.rights.explanation_text import REASONS
from foramen.identity.rights.permissions import WITHDRAW, change_permission
from tests.contract.admin.conftest import Admin

PAGE = "/apps/admin/policies"
HAN = "[\u4e00-\u9fff]"


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


async def test_chinese_pages_say_reasons_settings_and_files_in_chinese(admin: Admin):
    browser = await admin.signed_in("boss")
    told = (await browser.open(f"{PAGE}?account=builder&type=Observation&action=r&lang=zh")).text
    why = re.findall(r"</span></td><td>([^<]+)</td></tr>", told.split("<h2>")[0])
    assert len(why) >= 6
    names = {"engineer", "read-definitions", "operate-devices"}
    assert [reason for reason in why if not re.search(HAN, reason) and not set(reason.split(", ")) & names] == []
    about = re.findall(r"\.rego</a></th><td>([^<]+)</td>", told)
    assert len(about) >= 5
    assert [text for text in about if not re.search(HAN, text)] == []
    health = (await browser.open("/apps/admin/health")).text
    await browser.open("/apps/admin/health?lang=en")  # the other tests look with the same browser
    meanings = re.findall(r'<td><span class="soft">([^<]+)</span></td></tr>', health)
    assert len(meanings) == len(type(admin.settings).model_fields)
    assert [text for text in meanings if not re.search(HAN, text)] == []


def test_reasons_are_said_in_both_languages():
    assert set(REASONS["zh"]) == set(REASONS["en"])
    for name, said in REASONS["zh"].items():
        assert set(re.findall(r"{\w+}", said)) == set(re.findall(r"{\w+}", REASONS["en"][name])), name


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


async def test_the_tests_of_the_policy_run_once_for_a_process(admin: Admin, monkeypatch: pytest.MonkeyPatch):
    """They share their threads with password hashing: who opens the page again and again must not hold up sign-ins."""
    runs = []

    def counted():
        runs.append(1)
        return run_tests()

    monkeypatch.setattr("foramen.admin.endpoints.policies.run_tests", counted)
    policies.outcomes.cache_clear()
    browser = await admin.signed_in("boss")
    shown = [(await browser.open(f"{PAGE}/tests")).text for _ in range(3)]
    assert all(re.search(r"[1-9]\d* tests, 0 failed", page) for page in shown)
    assert len(runs) == 1


async def test_the_overview_counts_the_unreviewed_as_the_list_does_and_loads_none(admin: Admin):
    unreviewed = {"at": None, "by": None, "verdict": None}
    for number, institution in enumerate(("north", "north", "south", None)):
        admin.execute(
            "INSERT INTO identity.break_glass (id, account, institution, patient, reason_code, reason, started_at, "
            "until, reviewed_at, reviewed_by, verdict) VALUES (gen_random_uuid(), 'north-doctor', :institution, 'p1', "
            "'other', 'SYNTHETIC reason', now(), now(), :at, :by, :verdict)",
            institution=institution,
            **({"at": utc_now(), "by": "boss", "verdict": "justified"} if number == 0 else unreviewed),
        )
    try:
        for name, expected in (("boss", 3), ("north-admin", 1), ("south-admin", 1)):
            with transaction(admin.database_url) as connection:
                administrator = require_account(connection, name)
                loaded: list[str] = []
                event.listen(connection, "before_cursor_execute", lambda *a, seen=loaded: seen.append(a[2]))
                found = attention(connection, administrator, idle_s=600, two_factor_roles=())
                assert not [sql for sql in loaded if "break_glass.reason" in sql], "counted in the database"
                listed = list_unreviewed(connection, administrator)
            assert found.unreviewed == len(listed) == expected, name
    finally:
        admin.execute("DELETE FROM identity.break_glass")


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


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("database_url", "postgresql://u:SYNTHETIC-secret@127.0.0.1/x", "••••"),
        ("kms_command", "/usr/bin/kms --token SYNTHETIC-secret", "••••"),
        ("break_glass_alert_url", "https://chat.example.org/hooks/SYNTHETIC-secret", "https://chat.example.org/••••"),
        ("break_glass_alert_url", "https://chat.example.org?k=SYNTHETIC-secret", "https://chat.example.org/••••"),
        ("orthanc_url", "https://u:SYNTHETIC-secret@pacs.example.org:8042/o", "https://••••@pacs.example.org:8042/o"),
        ("orthanc_url", "https://pacs.example.org/o?k=SYNTHETIC-secret#x", "https://pacs.example.org/o?••••"),
        ("orthanc_url", "https://pacs.example.org/o#SYNTHETIC-secret", "https://pacs.example.org/o?••••"),
        ("orthanc_url", "https://SYNTHETIC-secret@[pacs", "••••"),
        ("internal_url", "http://u:SYNTHETIC-secret@127.0.0.1:9", "http://••••@127.0.0.1:9"),
    ],
)
async def test_what_settings_hold_of_secrets_is_hidden(admin: Admin, name: str, value: str, shown: str):
    browser = await admin.signed_in("boss")
    settings = admin.settings
    before = getattr(settings, name)
    object.__setattr__(settings, name, value)
    try:
        page = html.unescape((await browser.open("/apps/admin/health")).text)
    finally:
        object.__setattr__(settings, name, before)
    assert "SYNTHETIC-secret" not in page
    row = rf"<code>FORAMEN_{name.upper()}</code></th><td>{re.escape(shown)} <"
    assert re.search(row, page), "the rest is shown"
