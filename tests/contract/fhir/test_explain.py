"""`_explain`: administrators see how a search is answered; nobody sees a value in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.contract.fhir.api import EVERYTHING, Api, observation, refused

SECRET = "Geheimwert"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def admin(module_api: Api) -> AsyncIterator[Api]:
    for patient in ("p1", "p2"):
        await module_api.put_ok({"resourceType": "Patient", "id": patient, "name": [{"family": SECRET}]})
        for number in range(3):
            await module_api.put_ok({**observation(f"Patient/{patient}"), "id": f"{patient}-{number}"})
    yield module_api.as_(f"{EVERYTHING} foramen/admin")


def parts(parameters: list[dict[str, Any]], name: str) -> list[Any]:
    return [next(value for key, value in p.items() if key != "name") for p in parameters if p["name"] == name]


async def explained(api: Api, query: str) -> list[dict[str, Any]]:
    response = await api.get(f"/fhir/{query}")
    assert response.status_code == 200, response.text
    assert response.json()["resourceType"] == "Parameters"
    return response.json()["parameter"]


async def test_plan_cost_and_conditions(admin: Api) -> None:
    found = await explained(admin, f"Observation?patient.name={SECRET}&code=F01&date=ge2026&nonsense=x&_explain=true")
    used = {parts(p, "name")[0]: parts(p, "status")[0] for p in parts(found, "parameter")}
    assert used == {"patient.name": "used", "code": "used", "date": "used", "nonsense": "ignored"}
    (selection,) = parts(found, "selection")
    assert parts(selection, "type") == ["Observation"]
    assert parts(selection, "matches") == [6]
    kinds = [orjson.loads(text)["is"] for text in parts(selection, "condition")]
    assert kinds == ["Chained", "AnyPosting", "MainDate"]
    assert parts(found, "cost")[0] > 0
    assert parts(found, "rows")[0] >= 0
    assert "fhir.posting" in parts(found, "sql")[0]
    plan = orjson.loads(parts(found, "plan")[0])
    assert plan[0]["Plan"]["Node Type"]
    assert parts(selection, "access") == []


async def test_analyze_carries_it_out(admin: Api) -> None:
    found = await explained(admin, "Observation?code=F01&_explain=analyze")
    plan = orjson.loads(parts(found, "plan")[0])
    assert plan[0]["Plan"]["Actual Rows"] == 6
    assert plan[0]["Execution Time"] > 0


@pytest.mark.parametrize(
    "query",
    [
        f"Patient?name={SECRET}",
        f"Patient?name:contains={SECRET}",
        f"Observation?patient.name={SECRET}",
        f"Patient?_id={SECRET}",
        f"Patient?identifier=urn:{SECRET}|{SECRET}",
        f"Observation?value-string={SECRET}",
        f"Observation?_sort=-date&code=urn:{SECRET}|x&_count=2",
        f"Patient?name:exact={SECRET}",
        f"Patient?_filter=name eq {SECRET}",
        f"Observation?value-quantity=4711|urn:{SECRET}|x",
    ],
)
@pytest.mark.parametrize("mode", ["true", "analyze"])
async def test_no_value_is_shown(admin: Api, query: str, mode: str) -> None:
    text = orjson.dumps(await explained(admin, f"{query}&_explain={mode}")).decode()
    for value in (SECRET, SECRET.casefold(), "4711", "p1-", "Patient/p"):
        assert value not in text


async def test_what_access_took_away(admin: Api) -> None:
    bounded = admin.as_("patient/*.rs foramen/admin", patient="p1")
    found = await explained(bounded, "Observation?code=F01&_explain=true")
    (selection,) = parts(found, "selection")
    assert parts(selection, "matches") == [3]
    (access,) = parts(selection, "access")
    assert (parts(access, "type"), parts(access, "rule")) == (["Observation"], ["patient compartment"])
    assert parts(access, "removed") == [3]
    some = admin.as_("system/Observation.rs patient/Patient.rs foramen/admin", patient="p1")
    chained = await explained(some, f"Observation?patient.name={SECRET}&_explain=true")
    (selection,) = parts(chained, "selection")
    assert parts(selection, "matches") == [3]
    rules = {parts(a, "type")[0]: parts(a, "removed")[0] for a in parts(selection, "access")}
    assert rules == {"Patient": 3}


async def test_system_and_compartment_search(admin: Api) -> None:
    found = await explained(admin, "?_type=Observation,Patient&_explain=true")
    assert [(parts(s, "type")[0], parts(s, "matches")[0]) for s in parts(found, "selection")] == [
        ("Observation", 6),
        ("Patient", 2),
    ]
    found = await explained(admin, "Patient/p1/Observation?_explain=true")
    assert parts(parts(found, "selection")[0], "matches") == [3]


async def test_only_administrators(admin: Api) -> None:
    plain = admin.as_(EVERYTHING)
    for path in ("Observation?_explain=true", "?_type=Observation,Patient&_explain=true", "Patient/p1/*?_explain=true"):
        refused(await plain.get(f"/fhir/{path}"), 403, "forbidden")
    refused(await admin.get("/fhir/Observation?_explain=maybe"), 400, "value")
    assert (await plain.get("/fhir/Observation?_explain=false")).json()["resourceType"] == "Bundle"
    refused(await admin.as_("foramen/admin").get("/fhir/Observation?_explain=true"), 403, "forbidden")


async def test_it_is_audited(admin: Api) -> None:
    await explained(admin, "Observation?code=F01&_explain=true")
    events = (await admin.get("/fhir/AuditEvent?_count=1&_sort=-_lastUpdated")).json()
    assert events["entry"][0]["resource"]["subtype"][0]["code"] in ("search-type", "search")
