"""Sessions, what apps hold, institutions, and an account's history: within reach, ended, audited."""

from __future__ import annotations

import html
import re
import uuid

import pytest

from foramen.admin.page import MOUNT
from tests.contract.admin.conftest import Admin
from tests.contract.smart.people import SESSION, cookie_of


@pytest.fixture(autouse=True)
def fresh(admin: Admin):
    """Each test finds the accounts as they were made."""
    yield
    admin.restore()


def family_of(admin: Admin, name: str) -> uuid.UUID:
    """What the portal holds for somebody."""
    family = uuid.uuid4()
    admin.execute(
        "INSERT INTO identity.token_family (family, client_id, account, scope, launch_context, expires_at) "
        "VALUES (:family, 'portal', :name, 'user/Observation.rs', '{}', now() + interval '1 hour')",
        family=family,
        name=name,
    )
    return family


def revoked(admin: Admin, family: uuid.UUID) -> bool:
    rows = admin.execute("SELECT revoked_at FROM identity.token_family WHERE family = :family", family=family)
    return rows[0][0] is not None


async def test_one_session_is_ended_and_another_institutions_is_not_there(admin: Admin):
    north = await admin.signed_in("north-admin")
    doctor, stranger = await admin.sign_in("north-doctor"), await admin.sign_in("south-doctor")
    page = (await north.open(f"{MOUNT}/sessions")).text
    assert "south-doctor" not in page
    assert cookie_of(doctor, SESSION) not in page
    digests = dict(admin.execute("SELECT account, session_digest FROM identity.session"))
    token = re.search(r'name="csrf" value="(\w+)"', page)[1]
    answers = []
    for chosen in (digests["south-doctor"], "0" * 64):
        response = await north.http.post(f"{MOUNT}/sessions/end", data={"csrf": token, "session": chosen})
        answers.append((response.status_code, re.sub(r'nonce="[^"]+"', "", response.text)))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert (await stranger.http.get("/auth/account")).status_code == 200
    response = await north.http.post(f"{MOUNT}/sessions/end", data={"csrf": token, "session": digests["north-doctor"]})
    assert response.headers["location"] == f"{MOUNT}/sessions?done=session_ended"
    assert (await doctor.http.get("/auth/account")).status_code == 303
    event = admin.audited("session", "north-admin")[-1]
    assert (event["outcomeDesc"], event["entity"][0]["name"]) == ("ended", "north-doctor")


async def test_all_access_of_an_account_is_ended(admin: Admin):
    boss = await admin.signed_in("boss")
    doctor, family = await admin.sign_in("south-doctor"), family_of(admin, "south-doctor")
    await boss.open(f"{MOUNT}/accounts/south-doctor/end-sessions")
    assert (await doctor.http.get("/auth/account")).status_code == 200
    shown = await boss.submit(index=1)
    assert "have ended" in shown.text
    assert (await doctor.http.get("/auth/account")).status_code == 303
    assert revoked(admin, family)


async def test_what_an_app_holds_is_listed_and_revoked_within_reach(admin: Admin):
    north = await admin.signed_in("north-admin")
    mine, other = family_of(admin, "north-doctor"), family_of(admin, "south-doctor")
    page = (await north.open(f"{MOUNT}/authorizations?client=portal")).text
    assert str(mine) in page
    assert str(other) not in page
    assert "read and search observations and results" in page
    assert (await north.open(f"{MOUNT}/authorizations/{other}/revoke")).status_code == 404
    token = re.search(r'name="csrf" value="(\w+)"', page)[1]
    response = await north.http.post(f"{MOUNT}/authorizations/{other}/revoke", data={"csrf": token})
    assert response.status_code == 404
    assert not revoked(admin, other)
    await north.open(f"{MOUNT}/authorizations/{mine}/revoke")
    shown = await north.submit(index=1)
    assert "The authorization is revoked." in shown.text
    assert revoked(admin, mine)
    assert admin.audited("withdraw", "north-admin")[-1]["outcomeDesc"] == "authorization of portal ended"


async def test_institutions_are_added_and_renamed_by_who_manages_them_all(admin: Admin):
    boss, north = await admin.signed_in("boss"), await admin.signed_in("north-admin")
    await boss.open(f"{MOUNT}/institutions/new")
    shown = await boss.submit(index=1, id="east", name_zh="东院（SYNTHETIC）", name_en="East (SYNTHETIC)")
    assert "The institution is added." in shown.text
    await boss.open(f"{MOUNT}/institutions/new")
    shown = await boss.submit(index=1, id="east", name_zh="x", name_en="y")
    assert shown.status_code == 409
    assert "of this id" in html.unescape(shown.text)
    await boss.open(f"{MOUNT}/institutions/new")
    assert (await boss.submit(index=1, id="no id", name_zh="x", name_en="y")).status_code == 400
    await boss.open(f"{MOUNT}/institutions/east")
    shown = await boss.submit(index=1, name_zh="东方医院（SYNTHETIC）", name_en="Eastern (SYNTHETIC)")
    assert "Eastern (SYNTHETIC)" in shown.text
    said = [event["outcomeDesc"] for event in admin.audited("institution", "boss")]
    assert said[-2:] == ["east added", "east renamed"]
    assert "Eastern" not in (await north.open(f"{MOUNT}/institutions")).text
    assert (await boss.open(f"{MOUNT}/institutions/nowhere")).status_code == 404


async def test_history_that_cannot_be_read_is_not_empty(admin: Admin):
    """This server has no FHIR API: the page says so and shows no list."""
    boss = await admin.signed_in("boss")
    shown = await boss.open(f"{MOUNT}/accounts/north-doctor/history")
    assert shown.status_code == 503
    assert "Nothing matches" not in shown.text


async def test_a_session_that_ends_meanwhile_changes_nothing(admin: Admin):
    boss = await admin.sign_in("boss")
    await boss.open(f"{MOUNT}/accounts/north-doctor/disable")
    admin.execute("DELETE FROM identity.session WHERE account = 'boss'")
    await boss.submit(index=1)
    assert boss.path == "/auth/login"
    assert not admin.execute("SELECT disabled FROM identity.account WHERE name = 'north-doctor'")[0][0]


async def test_a_page_that_is_not_there_is_a_page(admin: Admin):
    boss = await admin.signed_in("boss")
    shown = await boss.open(f"{MOUNT}/no/such/page")
    assert shown.status_code == 404
    assert "There is no such entry" in shown.text
