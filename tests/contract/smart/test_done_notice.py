"""A page says that something was done when it was, once; an address that says so by itself shows nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.builders.browser import forms_of
from tests.contract.smart.people import People, people_server

SAID = "All other sessions ended."
LINK = "/auth/account?done=sessions-ended&lang=en"


@pytest.fixture(scope="module")
async def people(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with people_server(module_database_url, tmp_path_factory.mktemp("home")) as server:
        yield server


async def test_it_is_said_once_and_only_where_it_was_done(people: People):
    people.add("teller")
    browser, _ = await people.signed_in("teller"), await people.signed_in("teller")
    assert SAID not in (await browser.open(LINK)).text, "somebody sent a link"
    page = await browser.open("/auth/account?lang=en")
    forms = [number for number, item in enumerate(forms_of(page.text)) if item.action.endswith("sessions")]
    page = await browser.submit(forms[-1])
    assert SAID in page.text
    address = str(page.url)
    assert SAID not in (await browser.open(address)).text, "opened anew, nothing was done"
    assert SAID not in (await browser.open(LINK)).text


async def test_what_was_done_on_one_page_vouches_for_no_other_sentence(people: People):
    people.add("mixer")
    browser, other = await people.signed_in("mixer"), await people.signed_in("mixer")
    page = await browser.open("/auth/account?lang=en")
    forms = [number for number, item in enumerate(forms_of(page.text)) if item.action.endswith("sessions")]
    form = forms_of(page.text)[forms[-1]]
    answer = await browser.http.post(form.action, data=dict(form.fields), follow_redirects=False)
    assert answer.headers["location"].endswith("?done=sessions-ended")
    assert "done" in {cookie.name.removeprefix("foramen-") for cookie in browser.http.cookies.jar}
    shown = await browser.open("/auth/account?done=password-changed&lang=en")
    assert "password" in shown.text
    assert "Your password was changed" not in shown.text
    assert 'class="done"' not in shown.text
    await other.http.aclose()
