"""What the forms of accounts do: create, link, change, disable and undo, unlock, factors; each with its audit event."""

from __future__ import annotations

import html
import re

import pytest

from foramen.admin.page import MOUNT
from foramen.identity.database import utc_now
from tests.contract.admin.conftest import ACCOUNTS, Admin, AdminBrowser
from tests.contract.smart.people import PASSWORD

NEW = "a fine new sentence 7"


@pytest.fixture(autouse=True)
def fresh(admin: Admin):
    """Each test finds the accounts as they were made."""
    yield
    admin.restore()


async def send(browser: AdminBrowser, path: str, **values: str):
    """Open a page and send its form (the last one; the first signs out)."""
    page = await browser.open(f"{MOUNT}{path}")
    assert page.status_code == 200, page.text
    return await browser.submit(index=1, **values)


def account(admin: Admin, name: str) -> dict:
    rows = admin.execute("SELECT * FROM identity.account WHERE name = :name", name=name)
    return dict(rows[0]._mapping) if rows else {}


async def test_a_new_account_opens_with_its_link_only_and_only_once(admin: Admin):
    boss = await admin.signed_in("boss")
    shown = await send(boss, "/accounts/new", name="fresh", role="physician", institution="north", practitioner="")
    assert shown.status_code == 200
    link = html.unescape(re.search(r'value="(http[^"]+)"', shown.text)[1])
    assert link.startswith(f"{admin.settings.origin}/auth/set-password?token=")
    assert account(admin, "fresh")["institution"] == "north"
    said = [event["outcomeDesc"] for event in admin.audited("account", "boss")]
    assert said[-1] == "created as physician"
    assert admin.audited("password-link", "boss")
    token = link.partition("token=")[2]
    assert token not in str(admin.execute("SELECT * FROM identity.password_link"))
    assert token not in str(admin.execute("SELECT event FROM identity.audit_outbox"))

    person = admin.browser(**{"accept-language": "en"})
    page = await person.open(link)
    assert "fresh" in page.text
    refused = await person.submit(new_password="short", new_password_again="short")
    assert refused.status_code == 400
    differ = await person.submit(new_password=NEW, new_password_again=NEW + "x")
    assert differ.status_code == 400
    set_ = await person.submit(new_password=NEW, new_password_again=NEW)
    assert person.path == "/auth/login", set_.text
    await person.submit(username="fresh", password=NEW)
    assert person.path == "/auth/account"
    assert (await admin.browser().open(link)).status_code == 404
    changes = admin.audited("password-change", "fresh")
    assert changes[-1]["outcomeDesc"] == "link"


async def test_links_that_are_not_good_are_all_answered_alike(admin: Admin):
    boss = await admin.signed_in("boss")
    answers = []
    for spoil in (
        None,
        "UPDATE identity.password_link SET expires_at = now()",
        "UPDATE identity.account SET disabled = true WHERE name = 'north-doctor'",
    ):
        token = "no-such-token"
        if spoil:
            shown = await send(boss, "/accounts/north-doctor/password-link")
            token = re.search(r"token=([\w-]+)", shown.text)[1]
            admin.execute(spoil)
        response = await admin.browser(**{"accept-language": "en"}).open(f"/auth/set-password?token={token}")
        answers.append((response.status_code, re.sub(r'nonce="[^"]+"|value="[^"]+"', "", response.text)))
    assert answers[0][0] == 404
    assert answers[0] == answers[1] == answers[2]


async def test_a_newer_link_replaces_the_older_and_using_it_ends_sessions(admin: Admin):
    boss, doctor = await admin.signed_in("boss"), await admin.sign_in("south-doctor")
    links = []
    for _ in range(2):
        shown = await send(boss, "/accounts/south-doctor/password-link")
        links.append(html.unescape(re.search(r'value="(http[^"]+)"', shown.text)[1]))
    assert (await admin.browser().open(links[0])).status_code == 404
    person = admin.browser()
    await person.open(links[1])
    assert (await doctor.http.get("/auth/account")).status_code == 200
    await person.submit(new_password=NEW, new_password_again=NEW)
    assert (await doctor.http.get("/auth/account")).status_code == 303
    admin.execute(
        "UPDATE identity.account SET password_hash = (SELECT password_hash FROM identity.account "
        "WHERE name = 'north-doctor') WHERE name = 'south-doctor'"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "bad name"}, "1 to 64 letters"),
        ({"name": "scientist"}, "of this name"),
        ({"role": "patient"}, "needs its Patient"),
        ({"institution": "nowhere"}, "no such institution"),
        ({"practitioner": "not an id"}, "logical id"),
    ],
)
async def test_what_cannot_be_an_account_is_refused_and_the_form_comes_back(admin: Admin, values: dict, said: str):
    boss = await admin.signed_in("boss")
    typed = {"name": "fresh2", "role": "physician", "institution": "north", **values}
    shown = await send(boss, "/accounts/new", **typed)
    assert shown.status_code in (400, 409)
    assert said in html.unescape(shown.text)
    assert f'value="{typed["name"]}"' in shown.text
    assert account(admin, "fresh2") == {}


async def test_an_institution_administrator_makes_accounts_of_the_own_institution_and_rank_only(admin: Admin):
    north = await admin.signed_in("north-admin")
    page = (await north.open(f"{MOUNT}/accounts/new")).text
    assert "system-administrator" not in page
    assert "south" not in page
    for values in (
        {"role": "system-administrator"},
        {"role": "service"},
        {"institution": "south"},
        {"institution": ""},
    ):
        before = admin.refusals("north-admin")
        typed = {"name": "fresh3", "role": "physician", "institution": "north", **values}
        shown = await send(north, "/accounts/new", **typed)
        assert shown.status_code in (403, 404), values
        assert admin.refusals("north-admin") == before + 1
        assert account(admin, "fresh3") == {}
    shown = await send(north, "/accounts/new", name="fresh3", role="assistant", institution="north")
    assert shown.status_code == 200
    assert account(admin, "fresh3")["role"] == "assistant"


async def test_disabling_asks_first_ends_access_and_can_be_undone(admin: Admin):
    boss, doctor = await admin.signed_in("boss"), await admin.sign_in("north-doctor")
    asked = await boss.open(f"{MOUNT}/accounts/north-doctor/disable")
    assert "Disable the account north-doctor?" in asked.text
    assert not account(admin, "north-doctor")["disabled"]
    shown = await boss.submit(index=1)
    assert account(admin, "north-doctor")["disabled"]
    assert "The account is disabled." in shown.text
    assert (await doctor.http.get("/auth/account")).status_code == 303
    shown = await boss.submit(index=1)  # the undo button stands with the message
    assert not account(admin, "north-doctor")["disabled"]
    assert "The account is enabled." in shown.text
    said = [event["outcomeDesc"] for event in admin.audited("account", "boss")][-2:]
    assert said == ["disabled", "enabled"]


async def test_a_link_from_elsewhere_shows_no_undo_of_what_was_not_done(admin: Admin):
    """`?done=` is typed by anybody: the button it shows must not disable an account that is active, or the reverse."""
    boss = await admin.signed_in("boss")
    shown = await boss.open(f"{MOUNT}/accounts/north-doctor?done=account_disabled")
    assert 'action="/apps/admin/accounts/north-doctor/enable"' not in shown.text
    admin.execute("UPDATE identity.account SET disabled = true WHERE name = 'north-doctor'")
    shown = await boss.open(f"{MOUNT}/accounts/north-doctor?done=account_enabled")
    assert 'action="/apps/admin/accounts/north-doctor/disable"' not in shown.text


async def test_who_decides_on_the_own_account_or_a_higher_role_is_refused(admin: Admin):
    boss, north = await admin.signed_in("boss"), await admin.signed_in("north-admin")
    for browser, name in ((boss, "boss"), (north, "deputy"), (north, "north-admin")):
        page = await browser.open(f"{MOUNT}/accounts/{name}")
        assert "The policy does not let you change this account" in page.text
        assert "/disable" not in page.text
        token = re.search(r'name="csrf" value="(\w+)"', page.text)[1]
        for action in ("disable", "edit", "password-link", "reset-second-factor", "end-sessions", "unlock"):
            response = await browser.http.post(
                f"{MOUNT}/accounts/{name}/{action}", data={"csrf": token, "reason": "x", "role": "physician"}
            )
            assert response.status_code in (403, 404), (name, action)
        assert account(admin, name)["role"] == ACCOUNTS[name][0]
        assert not account(admin, name)["disabled"]


async def test_a_locked_account_is_found_and_unlocked(admin: Admin):
    boss = await admin.signed_in("boss")
    admin.execute("UPDATE identity.account SET locked_until = now() + interval '1 hour' WHERE name = 'scientist'")
    assert "accounts are locked" in (await boss.open(f"{MOUNT}/")).text
    listed = await boss.open(f"{MOUNT}/accounts?state=locked")
    assert "scientist" in listed.text
    assert "builder" not in listed.text
    await boss.open(f"{MOUNT}/accounts/scientist")
    shown = await boss.submit(index=1)
    assert "The account is unlocked." in shown.text
    assert account(admin, "scientist")["locked_until"] is None


async def test_a_lock_in_the_persons_own_browser_is_shown_and_ended_too(admin: Admin):
    boss = await admin.signed_in("boss")
    admin.execute(
        "INSERT INTO identity.known_device (device_digest, account, expires_at, failed_attempts, locked_until, locks) "
        "VALUES ('x', 'builder', now() + interval '1 day', 5, now() + interval '1 hour', 1)"
    )
    assert "builder" in (await boss.open(f"{MOUNT}/accounts?state=locked")).text
    assert "accounts are locked" in (await boss.open(f"{MOUNT}/")).text
    await boss.open(f"{MOUNT}/accounts/builder")
    shown = await boss.submit(index=1)
    assert "The account is unlocked." in shown.text
    assert admin.execute("SELECT locked_until FROM identity.known_device WHERE account = 'builder'") == [(None,)]


async def test_second_factors_are_reset_with_a_reason(admin: Admin):
    boss = await admin.signed_in("boss")
    await admin.signed_in("south-admin")
    count = "SELECT count(*) FROM identity.totp_device WHERE account = 'south-admin'"
    assert admin.execute(count)[0][0] == 1
    shown = await send(boss, "/accounts/south-admin/reset-second-factor", reason=" ")
    assert shown.status_code == 400
    assert admin.execute(count)[0][0] == 1
    shown = await send(boss, "/accounts/south-admin/reset-second-factor", reason="phone lost, seen in person")
    assert "removed" in shown.text
    assert admin.execute(count)[0][0] == 0
    assert admin.audited("second-factor", "boss")[-1]["outcomeDesc"] == "reset: phone lost, seen in person"


async def test_another_role_ends_access_and_another_person_is_refused(admin: Admin):
    boss, doctor = await admin.signed_in("boss"), await admin.sign_in("north-doctor")
    shown = await send(boss, "/accounts/north-doctor/edit", role="researcher", institution="south", practitioner="")
    assert shown.status_code == 409  # whom it stands for is not taken away
    shown = await send(boss, "/accounts/north-doctor/edit", role="researcher", institution="south")
    assert "their sessions" in shown.text or "sessions have ended" in shown.text
    assert account(admin, "north-doctor")["role"] == "researcher"
    assert (await doctor.http.get("/auth/account")).status_code == 303
    said = admin.audited("account", "boss")[-1]["outcomeDesc"]
    assert said == "role physician to researcher, institution north to south"


async def test_the_list_filters_searches_and_pages_within_reach(admin: Admin):
    north, boss = await admin.signed_in("north-admin"), await admin.signed_in("boss")
    names = [f"crowd-{number:03}" for number in range(120)]
    now = utc_now()
    for name in names:
        admin.execute(
            "INSERT INTO identity.account (name, password_hash, role, institution, disabled, failed_attempts, "
            "created_at, code_failures) VALUES (:name, 'x', 'assistant', :institution, false, 0, :now, 0)",
            name=name,
            institution="north" if int(name[-3:]) % 2 else "south",
            now=now,
        )
    page = (await north.open(f"{MOUNT}/accounts?q=CROWD&role=assistant")).text
    assert "60 found" in page
    assert len(re.findall(r">crowd-\d+<", page)) == 50
    assert "crowd-000" not in page
    following = html.unescape(re.search(r'href="([^"]+)" rel="next"', page)[1])
    page = (await north.open(following)).text
    assert len(re.findall(r">crowd-\d+<", page)) == 10
    everybody = (await boss.open(f"{MOUNT}/accounts?q=crowd&institution=south")).text
    assert "60 found" in everybody
    assert (await boss.open(f"{MOUNT}/accounts?q=cro%25d")).text.count("crowd-0") == 0  # no wildcard
    assert (await boss.open(f"{MOUNT}/accounts?page=0")).status_code == 400
    assert (await boss.open(f"{MOUNT}/accounts?state=odd")).status_code == 400
    admin.execute("DELETE FROM identity.account WHERE name LIKE 'crowd-%'")


async def test_what_is_typed_is_shown_as_text(admin: Admin):
    boss = await admin.signed_in("boss")
    page = await boss.open(f"{MOUNT}/accounts?q=%22%3E%3Cb%3Ex")
    assert "<b>x" not in page.text
    shown = await send(boss, "/accounts/new", name='"><b>x', role="physician")
    assert "<b>x" not in shown.text


async def test_an_old_sign_in_does_not_give_access_to_others(admin: Admin):
    boss = await admin.sign_in("boss")
    admin.execute("UPDATE identity.session SET authenticated_at = now() - interval '16 minutes' WHERE account = 'boss'")
    gives = ("enable", "password-link", "permissions")
    for path in ("/accounts/new", *(f"/accounts/north-doctor/{page}" for page in gives)):
        response = await boss.http.get(f"{MOUNT}{path}")
        assert response.status_code == 303
        assert response.headers["location"] == "/auth/login?then=admin"
    assert (await boss.http.get(f"{MOUNT}/accounts")).status_code == 200


async def test_one_factor_is_not_enough_for_an_administrator(admin: Admin):
    boss = await admin.sign_in("boss")
    admin.execute("UPDATE identity.session SET factors = '[\"password\"]' WHERE account = 'boss'")
    assert (await boss.http.get(f"{MOUNT}/accounts")).status_code == 303


async def test_a_permission_that_is_withdrawn_counts_at_the_next_request(admin: Admin):
    north = await admin.signed_in("north-admin")
    assert (await north.open(f"{MOUNT}/accounts")).status_code == 200
    admin.execute(
        "INSERT INTO identity.permission_change (id, account, permission, effect, reason, decided_by, created_at) "
        "VALUES (gen_random_uuid(), 'north-admin', 'manage-accounts', 'withdraw', 'test', 'boss', now())"
    )
    assert (await north.open(f"{MOUNT}/accounts")).status_code == 403
    page = (await north.open(f"{MOUNT}/")).text
    assert f'href="{MOUNT}/accounts"' not in page
    assert f'href="{MOUNT}/permissions"' in page


async def test_signing_in_leads_back_to_the_page_that_was_wanted(admin: Admin):
    browser = await admin.sign_in("boss", page=f"{MOUNT}/institutions")
    if "recovery" in browser.page.text:  # shown once, with the first factor
        await browser.open(f"{MOUNT}/")
    assert browser.path == f"{MOUNT}/institutions"
    assert (await browser.open(f"{MOUNT}/")).url.path == f"{MOUNT}/"
    assert (await browser.open(MOUNT)).url.path == f"{MOUNT}/"
    assert PASSWORD not in browser.page.text
