"""Every page and form of the image database for every role and for nobody: made from the route table."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from foramen.identity.app import ensure_user
from foramen.identity.policy import table
from foramen.image_database.app import image_database_routes
from foramen.image_database.page import MOUNT, Page
from foramen.image_database.routes import PAGES
from tests.builders.browser import Browser, forms_of
from tests.contract.ingest.conftest import ACCOUNTS, DOCTOR, grant
from tests.contract.smart.people import PASSWORD, SESSION, People, cookie_of, people_server

CASES = [(page, method) for page in PAGES for method in page.methods]
POSTS = [case for case in CASES if case[1] == "POST"]
HELD = {DOCTOR: {"read-identified", "manage-images"}, "south-doctor": {"read-identified"}}


def path_of(page: Page) -> str:
    return MOUNT + re.sub(r"\{(\w+)\}", "1.2.3", page.path)


def words_of(case: object) -> str:
    return case.path if isinstance(case, Page) else str(case)


def body_of(page: Page, **fields: str) -> dict[str, Any]:
    """A form as the page takes it."""
    if page.files:
        return {"data": fields, "files": {"files": ("x.dcm", b"x")}}
    return {"data": {"label": "x", **fields}}


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    """Sign-in and the pages; the record and the gateway are not there, so that a page let in too far says 503."""
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as served:
        for name, (role, _, practitioner, patient) in ACCOUNTS.items():
            ensure_user(module_database_url, name, PASSWORD, role, practitioner, None, patient=patient)
        grant(module_database_url, DOCTOR, "manage-images")
        routes = [Mount("/auth", served.service.app), *image_database_routes(served.service, served.settings)]
        served.app = Starlette(routes=routes)
        yield served


@pytest.fixture(scope="module")
async def browsers(people: People) -> dict[str, Browser]:
    return {name: await people.signed_in(name, **{"accept-language": "en"}) for name in ACCOUNTS}


def refusals(people: People) -> int:
    return sum(outcome == "4" for outcome, _ in people.events("images"))


def kept(people: People) -> list:
    return people.execute("SELECT launch_digest FROM identity.launch")


def test_every_page_asks_for_a_permission_that_the_policy_knows():
    assert {name for page in PAGES for name in page.needs} <= set(table("permissions"))
    assert all(page.needs for page in PAGES)
    assert not [page.path for page in PAGES if set(page.methods) - {"GET", "POST"}]


@pytest.mark.parametrize(("page", "method"), CASES, ids=words_of)
async def test_who_is_not_signed_in_is_sent_to_the_sign_in_page(people: People, page: Page, method: str):
    answer = await people.browser().http.request(method, path_of(page), **(body_of(page) if method == "POST" else {}))
    assert (answer.status_code, answer.headers["location"]) == (303, "/auth/login?then=images")
    assert answer.text == ""


async def test_signing_in_leads_back(people: People):
    browser = people.browser()
    await browser.open("/auth/login?then=images")
    await browser.submit(username=DOCTOR, password=PASSWORD)
    assert browser.redirected_to == f"{people.settings.origin}{MOUNT}/"


async def test_signing_in_leads_back_to_the_page_that_was_wanted(people: People):
    browser = people.browser()
    picture = await browser.http.get(f"{MOUNT}/studies/1.2/thumbnail", headers={"sec-fetch-dest": "image"})
    assert "set-cookie" not in picture.headers  # what a page shows is no page
    await browser.open(f"{MOUNT}/upload")
    await browser.submit(username=DOCTOR, password=PASSWORD)
    assert browser.redirected_to == f"{people.settings.origin}{MOUNT}/"
    first = await browser.http.get(f"{MOUNT}/")
    assert (first.status_code, first.headers["location"]) == (303, f"{MOUNT}/upload")
    assert (await browser.http.get(f"{MOUNT}/")).status_code == 503  # once: the record is not there


@pytest.mark.parametrize("name", ACCOUNTS)
async def test_only_who_has_the_permission_is_let_in(people: People, browsers: dict[str, Browser], name: str):
    browser = browsers[name]
    csrf = forms_of((await browser.http.get("/auth/account")).text)[0].fields["csrf"]
    before, launches, refused, wrong = refusals(people), kept(people), 0, []
    for page, method in CASES:
        answer = await browser.http.request(
            method, path_of(page), **(body_of(page, csrf=csrf) if method == "POST" else {})
        )
        if set(page.needs) & HELD.get(name, set()):
            wrong += [(method, page.path, answer.status_code)] if answer.status_code in (401, 403) else []
            continue
        refused += 1
        if answer.status_code != 403 or "You have no permission" not in answer.text:
            wrong.append((method, page.path, answer.status_code))
    assert not wrong
    assert refusals(people) == before + refused
    assert kept(people) == launches


@pytest.mark.parametrize(("page", "method"), POSTS, ids=words_of)
async def test_no_form_is_taken_without_its_token(
    people: People, browsers: dict[str, Browser], page: Page, method: str
):
    browser = browsers[DOCTOR]
    other = forms_of((await browsers["south-doctor"].http.get("/auth/account")).text)[0].fields["csrf"]
    for fields in ({}, {"csrf": other}, {"csrf": ""}):
        answer = await browser.http.post(path_of(page), **body_of(page, **fields))
        assert answer.status_code == 403, page.path
        assert "expired" in answer.text
    assert not list((people.settings.home / "uploads").glob("*"))


@pytest.mark.parametrize("page", [page for page in PAGES if "GET" in page.methods], ids=words_of)
async def test_pages_are_neither_framed_nor_cached_and_run_no_script_but_ours(browsers: dict[str, Browser], page: Page):
    browser = browsers[DOCTOR]
    answer = await browser.http.get(path_of(page))
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    if "text/html" in answer.headers.get("content-type", ""):
        assert re.findall(r"<script[^>]*>", answer.text) in ([], [f'<script src="{MOUNT}/assets/upload.js" defer>'])
        assert not re.search(r"\sstyle=|\son\w+=", answer.text)
        assert str(cookie_of(browser, SESSION)) not in answer.text
        for form in forms_of(answer.text):
            assert form.method == "get" or "csrf" in form.fields


async def test_a_record_that_cannot_be_asked_is_no_empty_list(browsers: dict[str, Browser]):
    answer = await browsers[DOCTOR].http.get(f"{MOUNT}/")
    assert answer.status_code == 503
    assert "not available" in answer.text
    assert "No study matches" not in answer.text


async def test_an_upload_beyond_the_limit_is_stopped_and_leaves_nothing(people: People, browsers: dict[str, Browser]):
    browser = browsers[DOCTOR]
    csrf = forms_of((await browser.http.get("/auth/account")).text)[0].fields["csrf"]
    boundary = "b" * 20
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{csrf}\r\n'.encode()
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="x.dcm"\r\n\r\n'.encode()
    headers = {"content-type": f"multipart/form-data; boundary={boundary}", "transfer-encoding": "chunked"}
    limit, people.settings.upload_bytes = people.settings.upload_bytes, 100_000

    async def body() -> AsyncIterator[bytes]:
        yield head
        for _ in range(20):
            yield bytes(10_000)
        yield f"\r\n--{boundary}--\r\n".encode()

    try:
        answer = await browser.http.post(f"{MOUNT}/upload", content=body(), headers=headers)
        announced: httpx.Response = await browser.http.post(
            f"{MOUNT}/upload", data={"csrf": csrf}, files={"files": ("x", bytes(150_000))}
        )
    finally:
        people.settings.upload_bytes = limit
    assert (answer.status_code, announced.status_code) == (413, 413)
    assert not list((people.settings.home / "uploads").glob("*"))
