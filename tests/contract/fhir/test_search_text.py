"""`_text` and `_content`: words in any language, read after every write, seen by nobody who may not see the resource."""
# ruff: noqa: E501 - one resource a line reads better

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, refused, running


def narrated(text: str) -> dict[str, Any]:
    return {
        "status": "generated",
        "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><p class="stenosis">{text}</p></div>',
    }


RESOURCES: list[dict[str, Any]] = [
    {"resourceType": "Patient", "id": "p1"},
    {"resourceType": "Patient", "id": "p2"},
    {"resourceType": "Condition", "id": "c1", "subject": {"reference": "Patient/p1"}, "text": narrated("Lumbar disc <b>herniation</b> at L5&amp;S1"),
     "code": {"text": "Bandscheibenvorfall Höhe L5"}},
    {"resourceType": "Condition", "id": "c2", "subject": {"reference": "Patient/p2"}, "text": narrated("腰椎间盘突出症，左侧"), "note": [{"text": "No red flags"}]},
    {"resourceType": "Condition", "id": "c3", "subject": {"reference": "Patient/p1"}, "code": {"text": "Spinal canal narrowing"}, "note": [{"text": "腰痛 three weeks"}]},
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def found(module_database_url: str) -> AsyncIterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_FHIR_FULL_TEXT", "true")
        async with running(module_database_url) as (_, client):
            api = Api(client)
            for resource in RESOURCES:
                await api.put_ok(resource)
            yield api


CASES = [
    ("_text=herniation", "c1"),
    ("_text=HERNIATION lumbar", "c1"),
    ("_text=herniat", ""),
    ("_text=herniat*", "c1"),
    ("_text=stenosis", ""),
    ("_text=L5", "c1"),
    ("_text=bandscheibenvorfall", ""),
    ("_content=bandscheibenvorfall", "c1"),
    ("_content=hohe", "c1"),
    ("_text=腰椎间盘", "c2"),
    ("_text=间盘突出", "c2"),
    ("_text=盘间", ""),
    ("_text=左", "c2"),
    ("_content=腰", "c2 c3"),
    ("_content=腰痛", "c3"),
    ("_content=腰痛 OR herniation", "c1 c3"),
    ("_content=腰 -痛", "c2"),
    ("_content=flags,narrowing", "c2 c3"),
    ("_content=red narrowing", ""),
    ("_content=flags&_text=左侧", "c2"),
    ("_content=l5&patient=p1&_sort=-_id", "c1"),
    ("_content=nothing", ""),
]


@pytest.mark.parametrize(("query", "expected"), CASES)
async def test_words(found: Api, query: str, expected: str) -> None:
    path = f"Condition?{quote(query, safe='=&')}"
    assert sorted(await found.ids(path)) == expected.split()
    assert (await found.get(f"/fhir/{path}&_summary=count")).json()["total"] == len(expected.split())


async def test_a_write_is_found_at_once_changed_at_once_and_gone_at_once(found: Api) -> None:
    body = {
        "resourceType": "Condition",
        "id": "w",
        "subject": {"reference": "Patient/p1"},
        "code": {"text": "firstword"},
    }
    await found.put_ok(body)
    assert await found.ids("Condition?_content=firstword") == ["w"]
    await found.put_ok({**body, "code": {"text": "secondword"}})
    assert await found.ids("Condition?_content=firstword") == []
    assert await found.ids("Condition?_content=secondword") == ["w"]
    await found.delete("/fhir/Condition/w")
    assert await found.ids("Condition?_content=secondword") == []


async def test_words_do_not_reach_over_the_compartment(found: Api) -> None:
    other = found.as_("patient/*.rs", patient="p1")
    assert await other.ids("Condition?_content=flags") == []
    assert sorted(await other.ids("Condition?_content=flags OR spinal")) == ["c3"]


@pytest.mark.parametrize("value", ["", "%20", "-", "%21%26%7C", "'", ":*"])
async def test_no_word_is_refused(found: Api, value: str) -> None:
    refused(await found.get(f"/fhir/Condition?_content={value}"), 400, "value")


@pytest.mark.parametrize("value", ["a' | 'b", "x:*&!y", "((((", "\\", "a & b", "' OR 1=1 --"])
async def test_operators_of_the_database_are_plain_text(found: Api, value: str) -> None:
    response = await found.get(f"/fhir/Condition?_content={quote(value)}")
    assert response.status_code in (200, 400)


async def test_switching_it_on_later_indexes_what_is_there_and_off_forgets(
    found: Api, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORAMEN_FHIR_FULL_TEXT", "false")
    async with running(database_url) as (_, client):
        api = Api(client)
        for resource in RESOURCES:
            await api.put_ok(resource)
        refused(await api.get("/fhir/Condition?_content=flags"), 400, "not-supported")
    monkeypatch.setenv("FORAMEN_FHIR_FULL_TEXT", "true")
    async with running(database_url) as (_, client):
        assert await Api(client).ids("Condition?_content=flags") == ["c2"]
    monkeypatch.setenv("FORAMEN_FHIR_FULL_TEXT", "false")
    async with running(database_url):
        with psycopg.connect(database_url) as connection:
            row = connection.execute("SELECT count(*) FROM fhir.full_text").fetchone()
    assert row == (0,)
