"""`_sort` by every kind of parameter, and pages: disjoint and complete while others write, one by one or side by side."""
# ruff: noqa: E501 - one resource a line reads better

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, entry, observation, refused, running

UCUM = "http://unitsofmeasure.org"


def patient(logical_id: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": logical_id, **more}


RESOURCES: list[dict[str, Any]] = [
    patient("a", gender="male", birthDate="1990-01-01", identifier=[{"value": "30"}, {"value": "05"}],
            name=[{"family": "Öz"}, {"family": "Abel"}], telecom=[{"system": "phone", "value": "9"}, {"system": "email", "value": "b@x"}]),
    patient("b", gender="female", birthDate="1980-05-05", identifier=[{"value": "20"}], name=[{"family": "Zorn"}],
            telecom=[{"system": "email", "value": "a@x"}], meta={"profile": ["http://e.org/a"], "source": "urn:b"}),
    patient("c", birthDate="1985", name=[{"family": "müller", "given": ["x"]}], meta={"profile": ["http://e.org/b"]},
            deceasedBoolean=True, managingOrganization={"reference": "Organization/o2"}),
    patient("d", gender="other", identifier=[{"value": "10"}], managingOrganization={"reference": "Organization/o1"}, active=True),
    {**observation("Patient/a", "F2"), "id": "o1", "valueQuantity": {"value": 3, "code": "mm", "system": UCUM}},
    {**observation("Patient/b", "F1"), "id": "o2", "status": "final", "valueQuantity": {"value": 20, "code": "mm", "system": UCUM}},
    {**observation("Patient/c", "F1", "2026-01-07"), "id": "o3", "status": "final"},
    {"resourceType": "RiskAssessment", "id": "r1", "status": "final", "subject": {"reference": "Patient/a"}, "prediction": [{"probabilityDecimal": 0.5}, {"probabilityDecimal": 0.1}]},
    {"resourceType": "RiskAssessment", "id": "r2", "status": "final", "subject": {"reference": "Patient/a"}, "prediction": [{"probabilityDecimal": 0.3}]},
    {"resourceType": "RiskAssessment", "id": "r3", "status": "final", "subject": {"reference": "Patient/a"}},
]  # fmt: skip


ORDERS = [
    # no value sorts below every value; of several the lowest counts ascending, the highest descending
    ("Patient?_sort=gender,_id", "c b a d"),
    ("Patient?_sort=-gender,-_id", "d a b c"),
    ("Patient?_sort=identifier", "c a d b"),
    ("Patient?_sort=-identifier", "a b d c"),
    ("Patient?_sort=email,_id", "c d b a"),
    ("Patient?_sort=organization,_id", "a b d c"),
    ("Patient?_sort=-organization,_id", "c d a b"),
    ("Patient?_sort=_profile,_id", "a d b c"),
    ("Patient?_sort=-_source,_id", "b a c d"),
    ("Patient?_sort=family", "d a c b"),
    ("Patient?_sort=-family", "b a c d"),
    ("Patient?_sort=birthdate", "d b c a"),
    ("Patient?_sort=active,-_id", "c b a d"),
    ("Patient?_sort=deceased,_id", "a b d c"),
    ("Patient?_sort=-_id", "d c b a"),
    ("Patient?_sort=_lastUpdated", "a b c d"),
    ("Patient?_sort=-_lastUpdated,_id", "d c b a"),
    ("Observation?_sort=code,-value-quantity", "o2 o3 o1"),
    ("Observation?_sort=-status,value-quantity", "o1 o3 o2"),
    ("Observation?_sort=value-quantity", "o3 o1 o2"),
    ("Observation?_sort=-subject", "o3 o2 o1"),
    ("Observation?_sort=-date,code,_id", "o3 o2 o1"),
    ("RiskAssessment?_sort=probability", "r3 r1 r2"),
    ("RiskAssessment?_sort=-probability", "r1 r2 r3"),
]


@pytest.mark.parametrize(("query", "expected"), ORDERS)
@pytest.mark.parametrize("count", [1, 3])
async def test_order(found: Api, query: str, expected: str, count: int) -> None:
    assert await found.ids(f"{query}&_count={count}") == expected.split()


@pytest.mark.parametrize(
    ("sort", "code", "named"),
    [("code-value-quantity", "not-supported", "composite"), ("nothing", "value", "nothing"), ("_score", "not-supported", "_score"),
     (",".join(["_id"] * 9), "too-costly", "_sort")],
)  # fmt: skip
async def test_what_cannot_be_sorted_by(found: Api, sort: str, code: str, named: str) -> None:
    outcome = refused(await found.get(f"/fhir/Observation?_sort={sort}"), 400, code)
    assert named in outcome["issue"][0]["diagnostics"]


@pytest.mark.parametrize("cursor", ["x", "WyJhIl0", "WzEsMiwzLDRd", "W251bGxd", "W3RydWVd"])
async def test_a_page_link_that_we_did_not_make(found: Api, cursor: str) -> None:
    refused(await found.get(f"/fhir/Patient?_sort=gender&_cursor={cursor}"), 400, "value")


SORTS = [
    "",
    "_sort=_id",
    "_sort=-_lastUpdated",
    "_sort=status,-date",
    "_sort=-code",
    "_sort=-value-quantity,code",
    "_sort=category",
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def many(found: Api) -> Api:
    chance = random.Random(3)
    for first in range(0, 240, 60):
        entries = []
        for number in range(first, first + 60):
            body = observation(f"Patient/n{number % 9}", f"N{number % 4}", f"2026-01-{number % 28 + 1:02}")
            body |= {
                "id": f"n{number}",
                "status": chance.choice(["final", "amended", "preliminary"]),
                "method": {"text": "stays"},
            }
            if number % 3:
                body["valueQuantity"] = {"value": chance.randint(1, 5), "unit": "mm"}
            entries.append(entry("PUT", f"Observation/n{number}", body))
        assert (await found.transaction(*entries)).status_code == 200
    return found


STAYING = {f"n{number}" for number in range(240)}


async def follow(api: Api, url: str) -> list[str]:
    found: list[str] = []
    while url:
        response = await api.get(url)
        assert response.status_code == 200, response.text
        bundle = response.json()
        found += [e["resource"]["id"] for e in bundle.get("entry", [])]
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
    return found


async def disturb(api: Api, stop: asyncio.Event) -> None:
    """Add, change and delete others as long as it is asked."""
    number = 0
    while not stop.is_set():
        name = f"other{number % 40}"
        body = {**observation("Patient/n1", f"N{number % 4}", f"2026-01-{number % 28 + 1:02}"), "id": name}
        await api.put(f"/fhir/Observation/{name}", body)
        if number % 3 == 0:
            await api.delete(f"/fhir/Observation/other{(number * 7) % 40}")
        number += 1


@pytest.mark.parametrize("sort", SORTS)
async def test_pages_partition_the_result_while_others_write(many: Api, sort: str) -> None:
    stop = asyncio.Event()
    writer = asyncio.create_task(disturb(many, stop))
    try:
        seen = await follow(many, f"/fhir/Observation?_count=17&date=2026-01&{sort}")
    finally:
        stop.set()
        await writer
    stayed = [name for name in seen if name in STAYING]
    assert len(stayed) == len(set(stayed))
    assert set(stayed) == STAYING


@pytest.mark.parametrize("parts", [1, 2, 7, 64])
@pytest.mark.parametrize("query", ["code=N1,N2", "date=2026-01&_sort=status", "patient.gender:missing=true", ""])
async def test_a_search_can_be_followed_side_by_side(many: Api, query: str, parts: int) -> None:
    whole = await follow(many, f"/fhir/Observation?{query}&_count=50")
    first = (await many.get(f"/fhir/Observation?{query}&_count=50&_partitions={parts}")).json()
    links = [link["url"] for link in first["link"] if link["relation"] == "partition"]
    assert len(links) == parts
    shares = await asyncio.gather(*(follow(many, url) for url in links))
    assert sorted(name for share in shares for name in share) == sorted(whole)


@pytest.mark.parametrize("value", ["0", "65", "-1", "x", "1,2"])
async def test_partitions_are_bounded(found: Api, value: str) -> None:
    refused(await found.get(f"/fhir/Observation?_partitions={value}"), 400, "value")


@pytest.mark.parametrize("value", ["0-1024", "5-2", "5", "a-b", "-1-5"])
async def test_a_partition_is_one_of_ours(found: Api, value: str) -> None:
    refused(await found.get(f"/fhir/Observation?_partition={value}"), 400, "value")


async def test_totals_accurate_and_estimated(many: Api) -> None:
    def total(response: httpx.Response) -> Any:
        return response.json().get("total")

    query = "/fhir/Observation?method:missing=false&_count=5"
    assert total(await many.get(query)) is None
    assert total(await many.get(f"{query}&_total=none")) is None
    assert total(await many.get(f"{query}&_total=accurate")) == 240
    assert total(await many.get(f"{query}&_total=estimate")) == 240
    refused(await many.get(f"{query}&_total=perhaps"), 400, "value")


async def test_an_order_by_content_has_a_bound(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORAMEN_FHIR_MAX_SORTED_BY_CONTENT", "2")
    async with running(database_url) as (_, client):
        api = Api(client)
        for resource in RESOURCES:
            await api.put_ok(resource)
        assert await api.ids("Observation?status=final&_sort=-code,_id") == ["o2", "o3"]
        for query in (
            "Observation?_sort=status",
            "Observation?_sort=date,-subject",
            "?_type=Observation,Patient&_sort=_tag",
        ):
            answer = await api.get(f"/fhir/{query}" if query[0] != "?" else f"/fhir{query}")
            outcome = refused(answer, 400, "too-costly")
            assert "at most 2 matches" in outcome["issue"][0]["diagnostics"]
        assert len(await api.ids("Observation?_sort=value-quantity")) == 3
