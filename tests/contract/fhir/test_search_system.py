"""System search: several types as one list, with pages, totals, includes and access for each type."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, observation, refused

TAG = {"system": "https://foramen.example/tag", "code": "SYN"}
META = {"tag": [TAG]}
DAYS = ("2026-01-01", "2026-01-03", "2026-01-05", "2026-01-07")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def record(module_api: Api) -> AsyncIterator[Api]:
    await module_api.put_ok({"resourceType": "Patient", "id": "p1", "meta": META, "name": [{"family": "Synthetic"}]})
    await module_api.put_ok({"resourceType": "Patient", "id": "p2"})
    for number, day in enumerate(DAYS):
        await module_api.put_ok({**observation("Patient/p1", date=day), "id": f"o{number}", "meta": META})
        await module_api.put_ok(
            {
                "resourceType": "Condition",
                "id": f"c{number}",
                **({"meta": META} if number % 2 else {}),
                "subject": {"reference": "Patient/p2"},
                "code": observation("x")["code"],
                "onsetDateTime": f"2026-01-0{2 * number + 2}",
            }
        )
    yield module_api


def names(bundle: dict[str, Any]) -> list[str]:
    entries = [e["resource"] for e in bundle.get("entry", []) if e["search"]["mode"] != "outcome"]
    return [f"{resource['resourceType']}/{resource['id']}" for resource in entries]


async def get(api: Api, query: str, **headers: str) -> dict[str, Any]:
    response = await api.get(f"/fhir?{query}", **headers)
    assert response.status_code == 200, response.text
    return response.json()


async def test_types_are_merged_newest_first(record: Api) -> None:
    bundle = await get(record, "_type=Observation,Condition")
    assert names(bundle) == [
        f"{kind}/{letter}{n}" for n in (3, 2, 1, 0) for kind, letter in (("Condition", "c"), ("Observation", "o"))
    ]
    assert bundle["total"] == 8
    assert bundle["link"][0]["url"] == "http://127.0.0.1:8000/fhir?_type=Condition%2CObservation"


@pytest.mark.parametrize("sort", ["", "_sort=_id", "_sort=-_lastUpdated", "_sort=-_id,_lastUpdated"])
async def test_pages_hold_every_match_once(record: Api, sort: str) -> None:
    found: list[str] = []
    url: str | None = f"/fhir?_type=Observation,Condition,Patient&_count=3&{sort}"
    while url is not None:
        bundle = (await record.get(url)).json()
        found += names(bundle)
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
    assert len(found) == len(set(found)) == 10
    if sort == "_sort=_id":
        assert found == sorted(found, key=lambda name: name.rpartition("/")[2])


async def test_a_page_link_stays_true_while_others_write(record: Api) -> None:
    first = await get(record, "_type=Observation,Condition&_count=4")
    await record.put_ok({**observation("Patient/p1", date="2027-01-01"), "id": "later"})
    try:
        url = next(link["url"] for link in first["link"] if link["relation"] == "next")
        second = (await record.get(url)).json()
        assert not set(names(first)) & set(names(second))
        assert len(names(first)) + len(names(second)) == 8
    finally:
        await record.delete("/fhir/Observation/later")


async def test_common_parameters(record: Api) -> None:
    tagged = await get(record, f"_tag={TAG['system']}|SYN")
    assert set(names(tagged)) == {
        "Patient/p1",
        "Condition/c1",
        "Condition/c3",
        *(f"Observation/o{n}" for n in range(4)),
    }
    assert set(names(await get(record, "_id=o1,c1"))) == {"Observation/o1", "Condition/c1"}
    assert names(await get(record, "_type=Patient,Condition&_tag:not=SYN&_sort=_id")) == [
        "Condition/c0",
        "Condition/c2",
        "Patient/p2",
    ]
    assert (await get(record, "_tag=SYN&_summary=count"))["total"] == 7
    counted = await get(record, "_tag=SYN&_count=2&_total=accurate")
    assert (counted["total"], len(counted["entry"])) == (7, 2)
    assert (await get(record, "_tag=nothing"))["total"] == 0


async def test_parameters_that_all_named_types_have(record: Api) -> None:
    assert set(names(await get(record, "_type=Observation,Condition&code=F01&patient=Patient/p2"))) == {
        f"Condition/c{n}" for n in range(4)
    }
    assert set(names(await get(record, "_type=Observation,Condition&patient.name=Synth"))) == {
        f"Observation/o{n}" for n in range(4)
    }
    refused(
        await record.get("/fhir?_type=Observation,Patient&code=F01", prefer="handling=strict"), 400, "not-supported"
    )
    bundle = await get(record, "_type=Observation,Patient&code=F01&_tag=SYN")
    outcome = next(e for e in bundle["entry"] if e["search"]["mode"] == "outcome")
    assert outcome["resource"]["issue"][0]["code"] == "not-supported"
    assert "code=" not in bundle["link"][0]["url"]
    assert len(names(bundle)) == 5


async def test_without_type_only_common_parameters_count(record: Api) -> None:
    refused(await record.get("/fhir?code=F01", prefer="handling=strict"), 400, "not-supported")
    bundle = await get(record, "code=F01&_tag=SYN")
    assert bundle["entry"][-1]["search"]["mode"] == "outcome"
    assert len(bundle["entry"]) == 8


async def test_includes_come_along(record: Api) -> None:
    bundle = await get(
        record, "_type=Observation,Condition&_id=o1,c1&_include=Observation:patient&_include=Condition:patient"
    )
    modes = {name: e["search"]["mode"] for name, e in zip(names(bundle), bundle["entry"], strict=True)}
    assert modes == {
        "Observation/o1": "match",
        "Condition/c1": "match",
        "Patient/p1": "include",
        "Patient/p2": "include",
    }


async def test_post_says_the_same(record: Api) -> None:
    form = {"content_type": "application/x-www-form-urlencoded"}
    sent = await record.send("POST", "/fhir/_search", b"_type=Observation,Condition&_id=o1,c1", **form)
    assert set(names(sent.json())) == {"Observation/o1", "Condition/c1"}


async def test_access_is_applied_to_each_type(record: Api) -> None:
    own = record.as_("patient/*.rs", patient="p2")
    found = set(names(await get(own, "_type=Observation,Condition,Patient")))
    assert found == {"Patient/p2", *(f"Condition/c{n}" for n in range(4))}
    assert (await get(own, "_type=Observation,Patient&_summary=count"))["total"] == 1
    some = record.as_("system/Observation.rs patient/Condition.rs", patient="p1")
    assert set(names(await get(some, "_tag=SYN"))) == {f"Observation/o{n}" for n in range(4)}
    refused(await some.get("/fhir?_type=Observation,Patient"), 403, "forbidden")
    refused(await record.as_("system/Observation.cr").get("/fhir?_tag=SYN"), 403, "forbidden")
    assert (await record.http.get("/fhir?_tag=SYN")).status_code == 401
    leak = await get(own, "_type=Group,Patient&_has:Observation:subject:code=F01&_summary=count")
    assert leak["total"] == 0


@pytest.mark.parametrize(
    ("query", "code"),
    [("_type=Nonsense", "value"), ("_type=Observation,Condition&_cursor=x", "value"), ("_count=x", "value")],
)
async def test_bad_input(record: Api, query: str, code: str) -> None:
    refused(await record.get(f"/fhir?{query}"), 400, code)


async def test_audit_names_no_value(record: Api) -> None:
    await get(record, "_type=Observation,Condition&_id=o1")
    events = (await record.get("/fhir/AuditEvent?_count=5&_sort=-_lastUpdated")).text
    assert "search-system" in events
    assert "o1" not in events.replace("foramen", "")
