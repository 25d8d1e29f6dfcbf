"""Searches that arrive together share a statement (ADR 0021): each gets its own answer, under its own access."""

from __future__ import annotations

import asyncio

import asyncpg

from fhir_server.store.connections import Connections
from fhir_server.store.gathered_pages import GatheredPageReader
from fhir_server.store.page_shapes import GatheredPages, PageQuestion
from fhir_server.store.replicas import Searches
from tests.builders.tokens import ORIGIN
from tests.contract.fhir.api import Api, entry, observation

PATIENTS = 12
CODES = ("F1", "F2", "F3")


async def fill(api: Api) -> dict[str, set[str]]:
    """Patient n has n observations, by turns of each code; return their ids by ``patient code``."""
    entries = []
    for number in range(PATIENTS):
        entries.append(entry("PUT", f"Patient/p{number}", {"resourceType": "Patient", "id": f"p{number}"}))
        for place in range(number):
            logical_id = f"o{number}-{place}"
            resource = {
                **observation(f"Patient/p{number}", CODES[place % 3], f"2026-01-{place + 1:02}"),
                "id": logical_id,
            }
            entries.append(entry("PUT", f"Observation/{logical_id}", resource))
    assert (await api.transaction(*entries)).status_code == 200
    expected: dict[str, set[str]] = {}
    for number in range(PATIENTS):
        for place in range(number):
            expected.setdefault(f"p{number} {CODES[place % 3]}", set()).add(f"o{number}-{place}")
    return expected


async def test_each_gets_its_own_matches_in_order(api: Api) -> None:
    expected = await fill(api)
    asked = [(f"p{number}", code) for number in range(PATIENTS) for code in CODES] * 4

    async def one(patient: str, code: str) -> list[str]:
        return await api.ids(f"Observation?patient={patient}&code={code}&date=ge2026&_sort=date")

    answers = await asyncio.gather(*(one(*names) for names in asked))
    for (patient, code), ids in zip(asked, answers, strict=True):
        assert set(ids) == expected.get(f"{patient} {code}", set())
        assert ids == sorted(ids, key=lambda name: int(name.partition("-")[2]))


async def test_pages_of_different_lengths_and_links_that_follow(api: Api) -> None:
    await fill(api)

    async def one(count: int) -> list[str]:
        return await api.ids(f"Observation?code=F1&_sort=-date&_count={count}")

    answers = await asyncio.gather(*(one(count) for count in (1, 2, 3, 5, 50) * 3))
    assert len(answers[0]) > 10
    assert all(ids == answers[0] for ids in answers)


async def test_access_is_each_callers_own(api: Api) -> None:
    expected = await fill(api)
    callers = [api.as_("patient/Observation.rs", patient=f"p{number}") for number in range(PATIENTS)]

    async def one(caller: Api, asked: int) -> list[str]:
        return await caller.ids(f"Observation?patient=p{asked}&code=F1")

    pairs = [(own, asked) for own in range(PATIENTS) for asked in (own, PATIENTS - 1 - own)]
    answers = await asyncio.gather(*(one(callers[own], asked) for own, asked in pairs))
    for (own, asked), ids in zip(pairs, answers, strict=True):
        assert set(ids) == (expected.get(f"p{own} F1", set()) if own == asked else set())


async def test_granular_scopes_share_a_statement_once_they_were_counted(api: Api, monkeypatch) -> None:
    """What a scope asks and what the search asks compete for the source; counts of before decide it at once."""
    expected = await fill(api)
    callers = {code: api.as_(f"user/Observation.rs?code={code}") for code in CODES}
    shared: list[PageQuestion] = []
    read = GatheredPageReader.read

    async def noted(self, question: PageQuestion, *, primary: bool):
        shared.append(question)
        return await read(self, question, primary=primary)

    monkeypatch.setattr(GatheredPageReader, "read", noted)
    path = "Observation?status=preliminary&_sort=-date&_count=100"
    before = {code: await caller.ids(path) for code, caller in callers.items()}
    shared.clear()
    after = dict(zip(callers, await asyncio.gather(*(c.ids(path) for c in callers.values())), strict=True))
    assert len({question.statement for question in shared}) == 1
    assert len(shared) == len(callers)
    for code, ids in after.items():
        assert set(ids) == set().union(*(found for key, found in expected.items() if key.endswith(f" {code}")))
        assert ids == before[code]


async def test_elements_and_summaries(api: Api) -> None:
    await fill(api)
    bundle = (await api.get("/fhir/Observation?patient=p3&_elements=code")).json()
    assert bundle["total"] == 3
    assert all("subject" not in e["resource"] and "code" in e["resource"] for e in bundle["entry"])
    assert {e["fullUrl"] for e in bundle["entry"]} == {f"{ORIGIN}/fhir/Observation/o3-{n}" for n in range(3)}


async def test_who_fails_fails_alone(database_url: str) -> None:
    """One search of a group that the database refuses: the others get their pages."""
    connections = Connections(database_url, 4, 10)
    await connections.start()
    try:
        reader = GatheredPageReader(Searches(connections, [], 0.1))
        text = (
            "SELECT a.place, p.* FROM unnest($1::bigint[]) WITH ORDINALITY AS a(x0, place)"
            " CROSS JOIN LATERAL (SELECT (100 / a.x0)::text AS id) p"
        )
        statement = GatheredPages(text, (0,))
        questions = [PageQuestion(statement, (number % 10,)) for number in range(60)]
        answers = await asyncio.gather(
            *(reader.read(question, primary=False) for question in questions), return_exceptions=True
        )
        for question, answer in zip(questions, answers, strict=True):
            (value,) = question.values
            if value == 0:
                assert isinstance(answer, asyncpg.DivisionByZeroError)
            else:
                assert isinstance(answer, list)
                assert [record["id"] for record in answer] == [str(100 // value)]
    finally:
        await connections.stop()
