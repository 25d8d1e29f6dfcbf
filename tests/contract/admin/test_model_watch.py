"""The model watch page: who sees it, what of it, and that nothing about a person can be reached through it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from foramen.admin.watch_report import read_watch
from foramen.identity.app import ensure_user
from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.operator_token import operator_token
from foramen.identity.people.sessions import start_session
from foramen.kernel.settings import Settings
from tests.builders import databases
from tests.builders.watches import watch_reports
from tests.contract.admin.live_admin import live_admin
from tests.contract.smart.people import PASSWORD

PATH = "/apps/admin/model-watch"


class Live:
    """The pages and the record, in which a report about one patient lies beside the watches (`live_admin`)."""

    def __init__(self, settings: Settings, database_url: str) -> None:
        self.settings, self.database_url = settings, database_url

    def http(self, name: str) -> httpx.AsyncClient:
        """A browser in which somebody is signed in with two factors."""
        with transaction(self.database_url) as connection:
            session = start_session(connection, name, None, utc_now(), factors=("password", "totp"))
        cookies = {"foramen-session": session, "foramen-language": "en"}
        return httpx.AsyncClient(base_url=self.settings.origin, cookies=cookies, timeout=30)


@pytest.fixture(scope="module", params=["shared", "separate"])
async def watched(
    request: pytest.FixtureRequest, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Live]:
    """Institutions share the record, or divide it."""
    home = tmp_path_factory.mktemp("home")
    with databases.database(postgres_url) as url:
        async with live_admin(url, home, institutions=request.param) as settings:
            ensure_user(url, "southern", PASSWORD, "engineer", None, "south")
            yield Live(settings, url)


async def seen(live: Live, name: str) -> tuple[set[str], int]:
    """Which watches of those that are there a person's pages show, and the status of the list."""
    found = set()
    async with live.http(name) as browser:
        listed = await browser.get(PATH)
        for identity in ("watch-0", "watch-1", "watch-2", "watch-north", "about-one-patient", "nothing"):
            status = (await browser.get(f"{PATH}/{identity}")).status_code
            assert status == 200 or status == (404 if listed.status_code == 200 else 403)
            assert (status == 200) == (f'{PATH}/{identity}"' in listed.text), identity
            found |= {identity} if status == 200 else set()
    return found, listed.status_code


async def test_who_sees_which_watch(watched: Live) -> None:
    everybody = {"watch-0", "watch-1", "watch-2", "watch-north"}
    separate = watched.settings.institutions == "separate"
    assert await seen(watched, "boss") == (everybody, 200)
    assert await seen(watched, "builder") == ({"watch-north"} if separate else everybody, 200)
    assert await seen(watched, "southern") == (set() if separate else everybody, 200)
    for name in ("north-doctor", "scientist", "ill", "north-helper", "north-admin"):
        assert await seen(watched, name) == (set(), 403)


async def test_what_is_hidden_in_the_report_is_hidden_on_the_page_and_what_cannot_be_told_is_said(
    watched: Live,
) -> None:
    async with watched.http("boss") as browser:
        page = (await browser.get(f"{PATH}/watch-2")).text
    assert "Alarm: a change is large and more than chance." in page
    assert page.count("<svg") > 5
    assert "Canal diameter" in page
    assert "No chart: too few, or no reference." in page
    assert "Patient/" not in page
    (steady,) = [one for one in watch_reports() if one["id"] == "watch-1"]
    watch = read_watch(steady)
    assert watch is not None
    assert watch.outcome == "too-few"
    few = {rate.name: rate for rate in watch.groups["site"]}
    assert few["small"].decided == 12
    bars = next(item for item in watch.drift if item.name == "grade").bars
    assert [bar.zh for bar in bars][:2] == ["Pfirrmann I 级", "Pfirrmann II 级"]
    assert sum(bar.now for bar in bars) == pytest.approx(1, abs=0.03)


async def test_the_record_tells_who_looked(watched: Live) -> None:
    ensure_user(watched.database_url, "looker", PASSWORD, "engineer", None, "north")
    async with watched.http("looker") as browser:
        assert (await browser.get(PATH)).status_code == 200
    token = operator_token(watched.settings, watched.database_url, "system/AuditEvent.rs")
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
        found = (await http.get(f"{watched.settings.fhir_base}/AuditEvent?altid=looker&_count=50")).json()
    looked = [entry["resource"]["subtype"][0]["code"] for entry in found["entry"]]
    assert looked == ["search-type"], "one reading of the record, by this person"


def test_a_report_that_is_no_watch_is_none() -> None:
    made = watch_reports()[0]
    assert read_watch(made) is not None
    assert read_watch({"resourceType": "MeasureReport", "id": "about-one-patient", "type": "individual"}) is None
    for missing in ("group", "period", "identifier"):
        assert read_watch({name: value for name, value in made.items() if name != missing}) is None
    strange = {**made, "extension": [{**made["extension"][0], "valueCode": "splendid"}]}
    read = read_watch(strange)
    assert read is not None
    assert read.outcome == "too-few"
