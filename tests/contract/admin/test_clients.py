"""Clients: who waits is seen first and whole, what was shown is what is approved, a secret is shown once."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from foramen.identity.database import transaction
from foramen.identity.oauth.clients import PENDING, PUBLIC, Client, save_client
from tests.contract.admin.conftest import Admin

APP = Client(
    "syn-app", PUBLIC, "launch patient/*.rs", ("https://app.test/cb",), name_zh="合成应用", name_en="SYNTHETIC app"
)
NEW = {
    "auth_method": "client_secret_basic",
    "scope": "system/Patient.rs",
    "redirect_uris": "https://one.test/cb\r\nhttps://two.test/cb",
    "launch_url": "https://one.test/launch",
}


def save(admin: Admin, client: Client) -> None:
    with transaction(admin.database_url) as connection:
        save_client(connection, client)


def state(admin: Admin, client_id: str) -> tuple:
    rows = admin.execute("SELECT status, disabled, scope FROM identity.client WHERE client_id = :id", id=client_id)
    return tuple(rows[0]) if rows else ()


async def submit(browser, action: str, **values: str):
    """Send the form of the open page that goes to `action`."""
    from tests.builders.browser import forms_of

    index = next(i for i, form in enumerate(forms_of(browser.page.text)) if form.action.endswith(action))
    return await browser.submit(index, **values)


async def test_a_pending_app_comes_first_and_is_approved_as_shown(admin: Admin):
    save(admin, replace(APP, client_id="zz-waits", status=PENDING))
    browser = await admin.signed_in("boss")
    listed = (await browser.open("/apps/admin/clients")).text
    assert listed.index("/clients/zz-waits") < listed.index("/clients/portal")
    shown = (await browser.open("/apps/admin/clients/zz-waits")).text
    for part in ("https://app.test/cb", "patient/*.rs", "authorization_code", "waits for approval"):
        assert part in shown
    done = await submit(browser, "/approve", scope="patient/Observation.rs")
    assert "The app is approved." in done.text
    assert state(admin, "zz-waits") == ("approved", False, "patient/Observation.rs")
    event = admin.audited("client-approval", "boss")[-1]
    assert event["outcomeDesc"] == "approved"


async def test_what_changed_after_it_was_shown_is_not_approved(admin: Admin):
    save(admin, replace(APP, client_id="changes", status=PENDING))
    browser = await admin.signed_in("boss")
    await browser.open("/apps/admin/clients/changes")
    save(admin, replace(APP, client_id="changes", status=PENDING, redirect_uris=("https://evil.test/cb",)))
    answer = await submit(browser, "/approve", scope=APP.scope)
    assert answer.status_code == 409
    assert "not what was shown" in answer.text
    assert "https://evil.test/cb" in answer.text
    assert state(admin, "changes")[0] == "pending"


async def test_a_scope_that_means_nothing_is_refused(admin: Admin):
    save(admin, replace(APP, client_id="odd-scope", status=PENDING))
    browser = await admin.signed_in("boss")
    await browser.open("/apps/admin/clients/odd-scope")
    answer = await submit(browser, "/approve", scope="patient/Everything.please")
    assert answer.status_code == 400
    assert state(admin, "odd-scope")[0] == "pending"


async def test_a_client_is_disabled_and_that_is_taken_back(admin: Admin):
    save(admin, APP)
    browser = await admin.signed_in("boss")
    await browser.open("/apps/admin/clients/syn-app/disable")
    page = await submit(browser, "/disable")
    assert state(admin, "syn-app")[1] is True
    assert "Undo" in page.text
    page = await browser.submit(1)  # the first form signs out, the second takes it back
    assert "enabled again" in page.text
    assert state(admin, "syn-app")[1] is False
    page = await browser.open("/apps/admin/clients/syn-app?done=client_disabled")
    assert "Undo" not in page.text, "a link from elsewhere: there is nothing to take back"


async def test_an_app_is_rejected_but_not_one_of_ours(admin: Admin):
    save(admin, replace(APP, client_id="to-reject"))
    browser = await admin.signed_in("boss")
    await browser.open("/apps/admin/clients/to-reject/reject")
    await submit(browser, "/reject")
    assert state(admin, "to-reject")[0] == "rejected"
    await browser.open("/apps/admin/clients/portal/reject")
    assert (await submit(browser, "/reject")).status_code == 409
    assert state(admin, "portal")[0] == "approved"


async def test_a_secret_is_shown_once_and_kept_as_a_digest(admin: Admin):
    browser = await admin.signed_in("boss")
    await browser.open("/apps/admin/clients/new")
    page = await submit(browser, "/clients/new", client_id="with-secret", **NEW)
    secret = re.search(r'id="secret">([^<]+)<', page.text)[1]
    assert page.headers["cache-control"] == "no-store"
    row = admin.execute("SELECT secret_hash, redirect_uris FROM identity.client WHERE client_id = 'with-secret'")[0]
    assert secret not in row[0]
    assert row[1] == ["https://one.test/cb", "https://two.test/cb"]
    assert secret not in (await browser.open("/apps/admin/clients/with-secret")).text
    events = admin.audited("client-registration", "boss")
    assert events
    assert secret not in str(events)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"client_id": "portal"}, 409),
        ({"client_id": "not an id"}, 400),
        ({"client_id": "bad-uri", "redirect_uris": "http://elsewhere.test/cb"}, 400),
        ({"client_id": "bad-launch", "launch_url": "javascript:alert(1)"}, 400),
        ({"client_id": "bad-method", "auth_method": "client_secret_post"}, 400),
        ({"client_id": "bad-keys", "auth_method": "private_key_jwt", "jwks": "[1"}, 400),
        ({"client_id": "no-keys", "auth_method": "private_key_jwt", "jwks": "{}"}, 400),
        ({"client_id": "bad-scope", "scope": "everything"}, 400),
    ],
)
async def test_what_cannot_be_registered_changes_nothing_and_comes_back(admin: Admin, changes: dict, status: int):
    browser = await admin.signed_in("boss")
    before = admin.execute("SELECT * FROM identity.client ORDER BY 1")
    await browser.open("/apps/admin/clients/new")
    answer = await submit(browser, "/clients/new", **{**NEW, **changes})
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert "one.test" in answer.text  # what was typed is not lost
    assert admin.execute("SELECT * FROM identity.client ORDER BY 1") == before


async def test_clients_are_found_by_name_and_state(admin: Admin):
    save(admin, APP)
    browser = await admin.signed_in("boss")

    async def found(query: str) -> bool:
        return "/clients/syn-app" in (await browser.open(f"/apps/admin/clients?{query}")).text

    assert await found("q=合成应用")
    assert not await found("q=syn-app&status=pending")
    assert not await found("q=%25")
