"""Whatever the scopes and the resources, a token sees the same by search, count, read, history and `_include`.

What it should see is decided by an oracle that knows neither the index nor conditions: it reads the JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.fhir.api import Api, entry, observation, patient_resource

CATEGORIES = ("laboratory", "vital-signs", "imaging")
CODES = ("F01", "F02")
STATUSES = ("preliminary", "final", "amended")
DATES = ("2026-01-05", "2026-02", "2026-02-10T08:00:00Z", "2027")
NUMBERS = (1, 2.5, 40)
PATIENTS = ("p1", "p2")
Resource = dict[str, Any]


def made(chance: Random) -> Resource:
    """An Observation, SYNTHETIC, without its id."""
    found = observation(f"Patient/{chance.choice(PATIENTS)}", chance.choice(CODES))
    found["status"] = chance.choice(STATUSES)
    found["effectiveDateTime"] = chance.choice(DATES)
    chosen = [code for code in CATEGORIES if chance.random() < 0.5]
    if chosen:
        found["category"] = [{"coding": [{"system": "urn:c", "code": code}]} for code in chosen]
    kind = chance.randrange(3)
    if kind == 0:
        found["valueQuantity"] = {"value": chance.choice(NUMBERS), "unit": "mm"}
    elif kind == 1:
        found["valueString"] = chance.choice(("Mild", "moderate", "sévère"))
    return found


def _codes(resource: Resource) -> set[str]:
    return {part["code"] for concept in resource.get("category", ()) for part in concept["coding"]}


def _ends(text: str) -> tuple[datetime, datetime]:
    """First moment and first moment after a date, in words of the calendar."""
    if "T" in text:
        at = datetime.fromisoformat(text)
        return at, at.replace(second=at.second + 1)
    parts = [int(part) for part in text.split("-")]
    zone = datetime.fromisoformat("2026-01-01T00:00:00Z").tzinfo
    year, month, day = (*parts, 1, 1)[:3]
    first = datetime(year, month, day, tzinfo=zone)
    if len(parts) == 1:
        return first, datetime(year + 1, 1, 1, tzinfo=zone)
    if len(parts) == 2:
        return first, datetime(year, month + 1, 1, tzinfo=zone)
    return first, datetime(year, month, day + 1, tzinfo=zone)


def _from(resource: Resource, text: str) -> bool:
    """`date=ge…`: some of the interval lies at or after."""
    (_, high), (least, most) = _ends(resource["effectiveDateTime"]), _ends(text)
    low = _ends(resource["effectiveDateTime"])[0]
    return high > most or (low >= least and high <= most)


Oracle = Callable[[Resource], bool]
QUERIES: dict[str, Oracle] = {
    "category=laboratory": lambda r: "laboratory" in _codes(r),
    "category=urn:c|laboratory,urn:c|imaging": lambda r: bool({"laboratory", "imaging"} & _codes(r)),
    "category=laboratory&category=imaging": lambda r: _codes(r) >= {"laboratory", "imaging"},
    "category:not=laboratory": lambda r: "laboratory" not in _codes(r),
    "category:missing=true": lambda r: not _codes(r),
    "category=urn:other|laboratory": lambda r: False,
    "status=final&code=F01": lambda r: r["status"] == "final" and r["code"]["coding"][0]["code"] == "F01",
    "status:not=final": lambda r: r["status"] != "final",
    "subject=Patient/p1": lambda r: r["subject"]["reference"] == "Patient/p1",
    "patient=p2": lambda r: r["subject"]["reference"] == "Patient/p2",
    "date=ge2026-02": lambda r: _from(r, "2026-02"),
    "date=lt2026-02": lambda r: _ends(r["effectiveDateTime"])[0] < _ends("2026-02")[0],
    "value-quantity=gt2": lambda r: r.get("valueQuantity", {}).get("value", 0) > 2,
    "value-string=mod": lambda r: r.get("valueString", "").lower().startswith("mod"),
    "value-string:exact=Mild": lambda r: r.get("valueString") == "Mild",
    "value-string:contains=EVE": lambda r: r.get("valueString") == "sévère",
    "value-concept:missing=true": lambda r: True,
    "code-value-quantity=F01$gt2": lambda r: (
        r["code"]["coding"][0]["code"] == "F01" and r.get("valueQuantity", {}).get("value", 0) > 2
    ),
    "_lastUpdated=ge2000": lambda r: True,
    "_id=none": lambda r: False,
    "nonsense=1": lambda r: False,
}
CONTEXTS = ("patient", "user", "system")
Chosen = list[tuple[str, str]]
combined = st.lists(st.tuples(st.sampled_from(CONTEXTS), st.sampled_from(("", *QUERIES))), min_size=2, max_size=3)


def _sees(chosen: Chosen, resource: Resource, patient: str) -> bool:
    own = resource["subject"]["reference"] == f"Patient/{patient}"
    return any((context != "patient" or own) and (not q or QUERIES[q](resource)) for context, q in chosen)


@dataclass
class Record:
    """The same Observations in two versions each: those of the oracle and those of the server."""

    api: Api
    versions: dict[str, tuple[Resource, Resource]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def record(module_api: Api) -> Record:
    chance = Random(20261122)
    versions = {f"o-{number}": (made(chance), made(chance)) for number in range(30)}
    for name in PATIENTS:
        await module_api.put_ok({**patient_resource(), "id": name})
    for step in (0, 1):
        writes = [entry("PUT", f"Observation/{n}", {**pair[step], "id": n}) for n, pair in versions.items()]
        assert (await module_api.transaction(*writes)).status_code == 200
    held = {"resourceType": "List", "id": "all", "status": "current", "mode": "working"}
    await module_api.put_ok({**held, "entry": [{"item": {"reference": f"Observation/{n}"}} for n in versions]})
    return Record(module_api, versions)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("context", CONTEXTS)
async def test_each_query_selects_what_the_oracle_says(record: Record, context: str, query: str) -> None:
    await _check(record, [(context, query)])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(chosen=combined)
async def test_scopes_together_select_what_the_oracle_says(record: Record, chosen: Chosen) -> None:
    await _check(record, chosen)


def test_the_queries_tell_resources_apart() -> None:
    chance = Random(20261122)
    drawn = [made(chance) for _ in range(60)]
    undecided = {query for query, oracle in QUERIES.items() if len({oracle(item) for item in drawn}) == 1}
    assert undecided == {
        *("category=urn:other|laboratory", "value-concept:missing=true", "_lastUpdated=ge2000"),
        *("_id=none", "nonsense=1"),
    }


async def _check(record: Record, chosen: Chosen) -> None:
    text = " ".join(f"{context}/Observation.rs" + (f"?{q}" if q else "") for context, q in chosen)
    token = record.api.as_(f"{text} system/List.rs", patient="p1")
    if all(query == "nonsense=1" for _, query in chosen):
        for path in ("Observation", "Observation/o-1", "Observation/_history"):
            assert (await token.get(f"/fhir/{path}")).status_code == 403
        return
    now = {name for name, pair in record.versions.items() if _sees(chosen, pair[1], "p1")}
    assert set(await token.ids("Observation?_count=11")) == now
    assert (await token.get("/fhir/Observation?_summary=count")).json()["total"] == len(now)
    included = (await token.get("/fhir/List?_include=List:item")).json()["entry"]
    assert {item["resource"]["id"] for item in included} - {"all"} == now
    await _check_chains(token, now)
    await _check_reads(record, token, chosen, now)


async def _check_chains(token: Api, now: set[str]) -> None:
    for name in ("o-0", "o-1"):
        has = await token.get(f"/fhir/List?item:Observation._id={name}&_summary=count")
        assert has.json()["total"] == int(name in now)


async def _check_reads(record: Record, token: Api, chosen: Chosen, now: set[str]) -> None:
    asked = ("", "/_history/1", "/_history/2", "/_history")
    gets = [entry("GET", f"Observation/{name}{suffix}") for name in record.versions for suffix in asked]
    answers = iter((await token.transaction(*gets, kind="batch")).json()["entry"])
    for name, pair in record.versions.items():
        seen = [number for number, version in enumerate(pair, 1) if _sees(chosen, version, "p1")]
        current, first, second, history = (next(answers) for _ in asked)
        statuses = [int(item["response"]["status"][:3]) for item in (current, first, second, history)]
        found = [name in now, 1 in seen, 2 in seen, bool(seen)]
        assert statuses == [200 if yes else 404 for yes in found], (name, chosen)
        shown = [int(e["resource"]["meta"]["versionId"]) for e in history.get("resource", {}).get("entry", ())]
        assert sorted(shown) == seen
