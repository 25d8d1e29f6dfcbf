"""Every page and form for every role and for nobody: made from the route table, so that a new page is tested too."""

from __future__ import annotations

import re
import uuid

import pytest

from foramen.admin.page import MOUNT, Page
from foramen.admin.routes import PAGES
from foramen.identity.database import transaction
from foramen.identity.people.accounts import Account
from foramen.identity.rights.permissions import own_rights
from foramen.identity.rights.roles import ROLES
from foramen.image_database.page import MOUNT as IMAGES
from foramen.image_database.routes import PAGES as IMAGE_PAGES
from tests.builders.browser import forms_of
from tests.contract.admin.conftest import ACCOUNTS, OF_ROLE, Admin
from tests.contract.smart.people import PASSWORD, SESSION, cookie_of

EXAMPLES = {
    "name": "north-doctor",
    "permission": "annotate",
    "id": str(uuid.UUID(int=7)),
    "client_id": "portal",
    "file": "permissions.rego",
}
"""A value for each parameter of a path; a page with another parameter fails `path_of`."""
PEOPLE = [*ROLES, None]
CASES = [(page, method) for page in PAGES for method in page.methods]


def path_of(page: Page, **values: str) -> str:
    """Fill in the parameters of a path."""
    return MOUNT + re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: {**EXAMPLES, **values}[found[1]], page.path)


def words_of(case: object) -> str:
    return f"{case.path}" if isinstance(case, Page) else str(case)


def rights(admin: Admin, name: str) -> frozenset[str]:
    with transaction(admin.database_url) as connection:
        role, institution, practitioner, patient = ACCOUNTS[name]
        return own_rights(connection, Account(name, role, practitioner, patient, institution)).permissions


async def csrf_of(admin: Admin, name: str) -> str:
    """The token of the forms of a session, taken from a page everybody has."""
    browser = await admin.signed_in(name)
    return forms_of((await browser.http.get("/auth/account")).text)[0].fields["csrf"]


def everything(admin: Admin) -> list:
    """All rows that administration changes; audit and sessions (last seen) apart."""
    tables = ("account", "permission_change", "delegation", "institution", "client", "password_link", "totp_device")
    return [admin.execute(f"SELECT * FROM identity.{table} ORDER BY 1") for table in tables]  # noqa: S608  of ours


def test_every_page_asks_for_a_permission_that_the_policy_knows():
    known = {"read-audit", "maintain-record"} | {name for page in PAGES for name in page.needs}
    from foramen.identity.policy import table

    assert known <= set(table("permissions"))
    assert all(page.needs for page in PAGES)
    assert not [page.path for page in PAGES if set(page.methods) - {"GET", "POST"}]


@pytest.mark.parametrize(("page", "method"), CASES, ids=words_of)
async def test_who_is_not_signed_in_is_sent_to_the_sign_in_page(admin: Admin, page: Page, method: str):
    before = everything(admin)
    browser = admin.browser()
    response = await browser.http.request(method, path_of(page), data={"reason": "x"} if method == "POST" else None)
    assert response.status_code == 303
    assert response.headers["location"] == "/auth/login?then=admin"
    assert response.text == ""
    assert everything(admin) == before


@pytest.mark.parametrize("role", ROLES)
async def test_only_who_has_the_permission_is_let_in(admin: Admin, role: str):
    """Pages and forms of all paths: refused with an audit event and no change, or shown."""
    name = OF_ROLE[role]
    browser, held = await admin.signed_in(name), rights(admin, name)
    csrf, before, events = await csrf_of(admin, name), everything(admin), admin.refusals(name)
    wrong, refused = [], 0
    for page, method in CASES:
        if any(needed in held for needed in page.needs):
            if method == "GET":  # what the forms do is in other tests
                status = (await browser.http.get(path_of(page))).status_code
                wrong += [] if status in (200, 503) or "{id}" in page.path else [(page.path, status)]
                refused += status == 404
            continue
        data = {"csrf": csrf, "reason": "x"} if method == "POST" else None
        response = await browser.http.request(method, path_of(page), data=data)
        if page.path == "/" and (first := next((one for one in PAGES if one.menu and set(one.needs) & held), None)):
            # The first page of who may not see it is the first one that they may.
            wrong += [] if response.headers.get("location") == path_of(first) else [("GET", "/", response.status_code)]
            continue
        refused += 1
        if response.status_code != 403 or "You have no permission" not in response.text:
            wrong.append((method, page.path, response.status_code))
    assert not wrong
    assert admin.refusals(name) == events + refused
    assert everything(admin) == before


async def test_the_drift_page_is_offered_to_who_may_see_it_and_to_nobody_else(admin: Admin):
    drift = f'href="{IMAGES}/drift"'
    assert [page.needs for page in IMAGE_PAGES if page.path == "/drift"] == [("maintain-record",)]
    for role in ROLES:
        browser, held = await admin.signed_in(OF_ROLE[role]), rights(admin, OF_ROLE[role])
        first = await browser.http.get("/apps/admin/", follow_redirects=True)
        assert (drift in first.text) is ("maintain-record" in held), role


async def test_signing_in_leads_back_to_the_page_that_was_wanted_and_not_to_the_overview(admin: Admin):
    """An engineer may see one page, which is not the overview."""
    name = OF_ROLE["engineer"]
    browser = admin.browser()
    await browser.open("/apps/admin/model-watch/absent")
    page = await browser.submit(username=name, password=PASSWORD)
    assert page.url.path == "/apps/admin/model-watch/absent"
    again = await browser.http.get("/apps/admin/")
    assert (again.status_code, again.headers["location"]) == (303, "/apps/admin/model-watch")


@pytest.mark.parametrize(("page", "method"), [case for case in CASES if case[1] == "POST"], ids=words_of)
async def test_no_form_is_taken_without_its_token(admin: Admin, page: Page, method: str):
    browser, other = await admin.signed_in("boss"), await csrf_of(admin, "deputy")
    before = everything(admin)
    for data in ({"reason": "x"}, {"reason": "x", "csrf": other}, {"reason": "x", "csrf": ""}):
        response = await browser.http.post(path_of(page), data=data)
        assert response.status_code == 403, page.path
        assert "expired" in response.text
    assert everything(admin) == before


async def test_a_token_from_before_sign_in_is_none_here(admin: Admin):
    """A cookie set from a neighbouring host must not make a form ours."""
    browser = await admin.sign_in("boss")
    stranger = admin.browser()
    page = await stranger.http.get("/auth/login")
    planted = next(cookie for cookie in stranger.http.cookies.jar if cookie.name == "foramen-csrf")
    browser.http.cookies.set("foramen-csrf", planted.value, domain="localhost.local", path="/")
    token = forms_of(page.text)[0].fields["csrf"]
    response = await browser.http.post(f"{MOUNT}/accounts/north-doctor/disable", data={"csrf": token})
    assert response.status_code == 403


@pytest.mark.parametrize(("page", "method"), [case for case in CASES if "{name}" in case[0].path], ids=words_of)
async def test_another_institutions_account_is_answered_like_none(admin: Admin, page: Page, method: str):
    browser, csrf = await admin.signed_in("north-admin"), await csrf_of(admin, "north-admin")
    before = everything(admin)
    data = {"csrf": csrf, "reason": "why", "role": "physician"}
    data |= {"permission": "annotate", "effect": "grant", "institution": "north"}
    answers = []
    for name in ("south-doctor", "nobody"):
        response = await browser.http.request(method, path_of(page, name=name), data=data if method == "POST" else None)
        body = re.sub(r'nonce(-|=")[\w-]+', "", response.text).replace(name, "NAME")
        answers.append((response.status_code, body))
    assert answers[0] == answers[1]
    assert answers[0][0] in (403, 404)
    assert everything(admin) == before


@pytest.mark.parametrize("page", [page for page in PAGES if "GET" in page.methods], ids=words_of)
async def test_no_page_names_another_institutions_people(admin: Admin, page: Page):
    browser = await admin.signed_in("north-admin")
    await admin.signed_in("south-doctor")
    text = (await browser.http.get(path_of(page))).text
    assert "south-doctor" not in text
    assert "south hospital" not in text
    assert cookie_of(browser, SESSION) not in text


@pytest.mark.parametrize("page", [page for page in PAGES if "GET" in page.methods], ids=words_of)
async def test_pages_are_neither_framed_nor_cached_nor_scripted(admin: Admin, page: Page):
    browser = await admin.signed_in("boss")
    response = await browser.http.get(path_of(page))
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-frame-options"] == "DENY"
    assert "<script" not in response.text
    assert not re.search(r"\sstyle=|\son\w+=", response.text)
    for form in forms_of(response.text):
        assert form.method == "get" or "csrf" in form.fields
