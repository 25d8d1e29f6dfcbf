"""The audit page over the real record: found by account, day and outcome, paged, exported; with own rights only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest

from foramen.identity.database import transaction, utc_now
from foramen.identity.oauth.operator_token import operator_token
from foramen.identity.people.sessions import start_session
from foramen.kernel.settings import Settings
from tests.contract.admin.live_admin import live_admin

EVENTS = 120
OWN = ("foramen-worker", "foramen-identity")


class Reader:
    """An administrator's browser: a session with two factors that was started for the test."""

    def __init__(self, settings: Settings, database_url: str) -> None:
        self.settings, self.database_url = settings, database_url

    def http(self, name: str) -> httpx.AsyncClient:
        with transaction(self.database_url) as connection:
            session = start_session(connection, name, None, utc_now(), factors=("password", "totp"))
        cookies = {"foramen-session": session, "foramen-language": "en"}
        return httpx.AsyncClient(base_url=f"{self.settings.origin}/apps/admin", cookies=cookies, timeout=30)


@pytest.fixture(scope="module")
async def reader(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Reader]:
    async with live_admin(module_database_url, tmp_path_factory.mktemp("home")) as settings:
        token = operator_token(settings, None, "system/AuditEvent.c")
        own = [event(28) | {"agent": [{"altId": name, "requestor": True}]} for name in OWN]
        events = [*(event(n) for n in range(EVENTS)), *own]
        entries = [{"resource": one, "request": {"method": "POST", "url": "AuditEvent"}} for one in events]
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}
        async with httpx.AsyncClient(headers=headers, timeout=60) as http:
            answer = (await http.post(settings.fhir_base, json=bundle)).json()
        assert {entry["response"]["status"][:3] for entry in answer["entry"]} == {"201"}
        yield Reader(settings, module_database_url)


def event(number: int) -> dict:
    return {
        "resourceType": "AuditEvent",
        "type": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110114"},
        "recorded": f"2026-01-{1 + number % 28:02d}T08:00:{number % 60:02d}Z",
        "outcome": "8" if number % 10 == 0 else "0",
        "agent": [{"altId": "syn-visitor", "name": "=SYN()", "requestor": True}],
        "source": {"observer": {"display": "SYNTHETIC"}},
        "entity": [{"what": {"reference": "Patient/syn-p"}}],
    }


async def test_pages_follow_each_other_without_gap_or_double(reader: Reader):
    async with reader.http("boss") as http:
        path, seen = "/audit?account=syn-visitor", []
        while path:
            page = await http.get(path)
            assert page.status_code == 200
            assert "Patient/syn-p" in page.text
            rows = page.text.split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
            seen += [row.split("<td>")[1].split("</td>")[0] for row in rows]
            following = [part for part in page.text.split('href="') if 'rel="next"' in part.split(">")[0]]
            path = following[0].split('"')[0].replace("&amp;", "&").removeprefix("/apps/admin") if following else ""
    assert len(seen) == EVENTS
    assert seen == sorted(seen, reverse=True)


async def test_filters_by_day_outcome_and_patient(reader: Reader):
    async with reader.http("boss") as http:
        one_day = (
            await http.get("/audit/export?account=syn-visitor&since=2026-01-03&until=2026-01-03&format=ndjson")
        ).text
        assert {json.loads(line)["recorded"][:10] for line in one_day.splitlines()} == {"2026-01-03"}
        refused = (await http.get("/audit/export?patient=syn-p&outcome=8&format=ndjson")).text
        assert {json.loads(line)["outcome"] for line in refused.splitlines()} == {"8"}
        assert len(refused.splitlines()) == EVENTS // 10
        of_day = "/audit/export?since=2026-01-01&until=2026-01-01&format=ndjson"
        whose = [{json.loads(line)["agent"][0]["altId"] for line in (await http.get(url)).text.splitlines()}
                 for url in (of_day, f"{of_day}&by=people")]  # fmt: skip
        assert whose == [{"syn-visitor", *OWN}, {"syn-visitor"}]
        nothing = await http.get("/audit?account=syn-visitor,boss")
        assert "Nothing" in nothing.text  # a comma is part of the name, not an or


async def test_the_export_holds_everything_and_no_formula(reader: Reader):
    async with reader.http("boss") as http:
        answer = await http.get("/audit/export?account=syn-visitor&format=csv")
    assert answer.headers["content-disposition"].startswith('attachment; filename="audit-')
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert len(rows) == EVENTS
    assert {row["app"] for row in rows} == {"'=SYN()"}


async def test_bad_questions_are_told(reader: Reader):
    async with reader.http("boss") as http:
        for query in ("since=yesterday", "outcome=99", "by=robots"):
            assert (await http.get(f"/audit?{query}")).status_code == 400
            assert (await http.get(f"/audit/export?{query}")).status_code == 400
        assert (await http.get("/audit/export?format=xml")).status_code == 400
        assert (await http.get("/audit?after=forged")).status_code in (400, 404, 410)


async def test_looking_is_audited_and_bounded_by_ones_own_rights(reader: Reader):
    async with reader.http("boss") as http:
        await http.get("/audit")
        today = datetime.now(UTC).strftime("%Y-%m-%d")
        own = (await http.get(f"/audit/export?account=boss&what=search-type&since={today}&format=ndjson")).text
    assert own.splitlines()
    async with reader.http("north-admin") as http:  # an institution's administrator does not read the audit trail
        assert (await http.get("/audit")).status_code == 403
        assert (await http.get("/audit/export")).status_code == 403


async def test_the_parts_are_asked(reader: Reader):
    async with reader.http("boss") as http:
        page = (await http.get("/health")).text
    assert "not known" in page  # /readyz belongs to the web process, which this test does not run
