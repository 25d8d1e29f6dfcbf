"""Search parameters added at run time: who may, when they take effect, that nothing is missed, that they go away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from fhir_server.search import parameters
from fhir_server.store import parameter_jobs
from tests.contract.fhir.api import EVERYTHING, Api, entry, observation, refused, running

ADMIN = f"{EVERYTHING} foramen/admin"


def definition(code: str, kind: str = "token", expression: str = "Observation.method", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "SearchParameter",
        "id": code,
        "url": f"https://foramen.example/fhir/SearchParameter/{code}",
        "name": "SYNTHETIC",
        "status": "active",
        "description": "SYNTHETIC",
        "code": code,
        "base": ["Observation"],
        "type": kind,
        "expression": expression,
        **more,
    }


def measured(number: int, **more: Any) -> dict[str, Any]:
    return {
        **observation("Patient/p"),
        "id": f"o{number}",
        "method": {"coding": [{"system": "urn:m", "code": f"M{number}"}], "text": f"Method {number}"},
        **more,
    }


async def wait_until_complete(api: Api, query: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        bundle = (await api.get(f"/fhir/{query}")).json()
        if not any(e["search"]["mode"] == "outcome" for e in bundle.get("entry", [])):
            return bundle
        assert time.monotonic() < deadline, "the index was not completed"
        await asyncio.sleep(0.1)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one process only, which knows of a change at once: no need to wait for others to hear of it."""
    monkeypatch.setattr(parameter_jobs, "_GRACE_S", 0.1)


@pytest_asyncio.fixture(loop_scope="session")
async def admin(api: Api) -> AsyncIterator[Api]:
    yield api.as_(ADMIN)


async def test_every_kind_finds_what_was_there_before(admin: Api, alone: None) -> None:
    await admin.put_ok({"resourceType": "Patient", "id": "p"})
    resource = measured(
        1,
        valueQuantity={"value": 5, "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"},
        note=[{"text": "Größe unklar", "time": "2026-03-04"}],
        derivedFrom=[{"reference": "Observation/o2"}],
        instantiatesUri="urn:x" if False else None,
        component=[{"code": {"text": "c"}, "valueInteger": 7}],
    )
    resource.pop("instantiatesUri")
    await admin.put_ok(resource)
    await admin.put_ok(measured(2))
    kinds = {
        "my-token": ("token", "Observation.method", ["urn:m|M1", "M1", "urn:m|"], ["urn:m|M3", "urn:x|M1"]),
        "my-string": ("string", "Observation.note.text", ["grosse", "GRÖSSE unk"], ["unklar"]),
        "my-date": ("date", "Observation.note.time", ["2026-03-04", "ge2026", "lt2026-04"], ["2025", "gt2026-03-04"]),
        "my-quantity": (
            "quantity",
            "Observation.value.ofType(Quantity)",
            ["5", "0.5|http://unitsofmeasure.org|cm"],
            ["6"],
        ),
        "my-number": ("number", "Observation.component.value.ofType(integer)", ["7", "gt6"], ["8"]),
        "my-reference": ("reference", "Observation.derivedFrom", ["Observation/o2", "o2"], ["Observation/o1"]),
        "my-uri": ("uri", "Observation.method.coding.system", ["urn:m"], ["urn"]),
    }
    for code, (kind, expression, _, _) in kinds.items():
        await admin.put_ok(definition(code, kind, expression, target=["Observation"]))
    for code, (_, _, hits, misses) in kinds.items():
        await wait_until_complete(admin, f"Observation?{code}:missing=false")
        for value in hits:
            assert "o1" in await admin.ids(f"Observation?{code}={value}"), (code, value)
        for value in misses:
            assert "o1" not in await admin.ids(f"Observation?{code}={value}"), (code, value)
    assert await admin.ids("Observation?my-string:missing=true") == ["o2"]
    assert await admin.ids("Observation?my-reference.my-token=M2") == ["o1"]
    assert await admin.ids("Observation?_has:Observation:my-reference:my-number=7") == ["o2"]
    bundle = (await admin.get("/fhir/Observation?_id=o1&_include=Observation:my-reference")).json()
    assert [e["resource"]["id"] for e in bundle["entry"]] == ["o1", "o2"]
    assert await admin.ids("Observation?_sort=-my-number") == ["o1", "o2"]
    listed = (await admin.get("/fhir/metadata")).json()["rest"][0]["resource"]
    names = {p["name"] for r in listed if r["type"] == "Observation" for p in r["searchParam"]}
    assert set(kinds) <= names


async def test_incomplete_is_said_or_refused(admin: Api) -> None:
    await admin.put_ok({"resourceType": "Patient", "id": "p"})
    await admin.put_ok(measured(1))
    await admin.put_ok(definition("slow"))
    bundle = (await admin.get("/fhir/Observation?slow=M1")).json()
    issue = bundle["entry"][-1]["resource"]["issue"][0]
    assert (issue["severity"], issue["code"], issue["expression"]) == ("warning", "incomplete", ["http.slow"])
    strict = refused(await admin.get("/fhir/Observation?slow=M1", prefer="handling=strict"), 503, "incomplete")
    assert strict["issue"][0]["expression"] == ["http.slow"]
    # Not found would mean: create it once more.
    refused(await admin.post("/fhir/Observation", measured(9), if_none_exist="slow=M1"), 503, "incomplete")
    assert await admin.ids("Observation?code=F01") == ["o1"]
    await wait_until_complete(admin, "Observation?slow=M1")
    again = await admin.post("/fhir/Observation", measured(9), if_none_exist="slow=M1")
    assert (again.status_code, again.json()["id"]) == (200, "o1")


async def test_no_write_after_activation_is_missed_in_any_process(database_url: str) -> None:
    """Two services, each with its own registry and connections, as two web processes are."""
    async with running(database_url) as (_, first_http), running(database_url) as (_, second_http):
        first, second = Api(first_http, ADMIN), Api(second_http, ADMIN)
        await first.put_ok({"resourceType": "Patient", "id": "p"})
        stop = False
        written: list[int] = []

        async def write(api: Api, parity: int) -> None:
            number = parity
            while not stop:
                await api.put_ok(measured(number))
                written.append(number)
                number += 2
                await asyncio.sleep(0.01)

        writers = [asyncio.create_task(write(api, parity)) for parity, api in enumerate((first, second))]
        await asyncio.sleep(0.3)
        await first.put_ok(definition("raced"))
        await wait_until_complete(second, "Observation?raced=M1")
        stop = True
        await asyncio.gather(*writers)
        found = set(await second.ids("Observation?raced=urn:m|&_count=1000"))
        assert found == {f"o{number}" for number in written}
        assert len(written) > 50
        # An update moves the entry, whichever process does it.
        await second.put_ok({**measured(1), "method": {"coding": [{"system": "urn:m", "code": "NEW"}]}})
        assert await first.ids("Observation?raced=M1") == []
        assert await first.ids("Observation?raced=NEW") == ["o1"]


async def test_change_and_removal(admin: Api, database_url: str, alone: None) -> None:
    await admin.put_ok({"resourceType": "Patient", "id": "p"})
    await admin.put_ok(measured(1))
    await admin.put_ok(definition("mine"))
    await wait_until_complete(admin, "Observation?mine=M1")
    with psycopg.connect(database_url, autocommit=True) as connection:

        def entries() -> int:
            tables = ("posting", "string_value", "date_value", "number_value")
            return sum(connection.execute(f"SELECT count(*) FROM fhir.{t}, fhir.resource r WHERE r.row = {t}.row AND r.type = 'Observation'").fetchone()[0] for t in tables)  # type: ignore[index]  # noqa: S608, E501  # fmt: skip

        with_parameter = entries()
        await admin.put_ok(definition("mine", description="another text"))
        assert await admin.ids("Observation?mine=M1") == ["o1"]  # Nothing was rebuilt for a text.
        await admin.put_ok(definition("mine", "string", "Observation.method.text"))
        await wait_until_complete(admin, "Observation?mine=method")
        assert await admin.ids("Observation?mine=method") == ["o1"]
        assert await admin.ids("Observation?mine=M1") == []
        await admin.delete("/fhir/SearchParameter/mine")
        refused(await admin.get("/fhir/Observation?mine=method", prefer="handling=strict"), 400, "not-supported")
        deadline = time.monotonic() + 20
        while connection.execute("SELECT count(*) FROM fhir.search_parameter").fetchone() != (0,):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert entries() < with_parameter
        gone = entries()
        await admin.put_ok(definition("mine"))
        await wait_until_complete(admin, "Observation?mine=M1")
        assert entries() == with_parameter > gone


async def test_only_an_administrator_puts_one_in_force(api: Api, alone: None) -> None:
    await api.put_ok({"resourceType": "Patient", "id": "p"})
    stored = await api.put_ok(definition("plain"))  # Stored as any resource, without effect.
    assert stored["code"] == "plain"
    refused(await api.get("/fhir/Observation?plain=M1", prefer="handling=strict"), 400, "not-supported")
    admin = api.as_(ADMIN)
    await admin.put_ok(definition("plain", description="by an administrator"))
    await wait_until_complete(admin, "Observation?plain=M1")
    refused(await api.put("/fhir/SearchParameter/plain", definition("plain", status="retired")), 403, "forbidden")
    refused(await api.delete("/fhir/SearchParameter/plain"), 403, "forbidden")
    refused(await api.transaction(entry("DELETE", "SearchParameter/plain")), 403, "forbidden")
    assert (await api.get("/fhir/Observation?plain=M1", prefer="handling=strict")).status_code == 200
    await admin.put_ok(definition("plain", status="retired"))
    refused(await api.get("/fhir/Observation?plain=M1", prefer="handling=strict"), 400, "not-supported")


@pytest.mark.parametrize(
    ("change", "code", "element"),
    [
        ({"expression": "Observation.method.("}, "invalid", "expression"),
        ({"expression": "Observation.unknownFunction()"}, "invalid", "expression"),
        ({"expression": "Observation.method" + " | Observation.method" * 100}, "too-costly", "expression"),
        ({"type": "composite"}, "not-supported", "type"),
        ({"type": "special"}, "not-supported", "type"),
        ({"code": "_mine"}, "value", "code"),
        ({"code": "a:b"}, "value", "code"),
        ({"code": "status"}, "business-rule", "code"),
        ({"base": ["Resource"]}, "not-supported", "base"),
    ],
)
async def test_what_cannot_take_effect_is_refused(
    module_api: Api, change: dict[str, Any], code: str, element: str
) -> None:
    admin = module_api.as_(ADMIN)
    response = await admin.put("/fhir/SearchParameter/bad", {**definition("bad"), **change})
    outcome = refused(response, 422, code)
    assert outcome["issue"][0]["expression"] == [f"SearchParameter.{element}"]
    assert (await admin.get("/fhir/SearchParameter/bad")).status_code == 404


async def test_two_of_one_name_and_a_bad_one_in_a_transaction(api: Api) -> None:
    admin = api.as_(ADMIN)
    await admin.put_ok(definition("one"))
    refused(await admin.put("/fhir/SearchParameter/two", {**definition("one"), "id": "two"}), 422, "duplicate")
    both = [{**definition("three")}, {**definition("four"), "expression": "Observation.("}]
    response = await admin.transaction(*(entry("PUT", f"SearchParameter/{d['id']}", d) for d in both))
    refused(response, 422, "invalid")
    refused(await admin.get("/fhir/Observation?three=x", prefer="handling=strict"), 400, "not-supported")
    assert (await admin.get("/fhir/SearchParameter/three")).status_code == 404


async def test_an_expression_that_fails_on_a_resource_does_not_stop_writes(admin: Api, alone: None) -> None:
    await admin.put_ok({"resourceType": "Patient", "id": "p"})
    await admin.put_ok(definition("single", "string", "Observation.note.text.substring(1)"))
    await wait_until_complete(admin, "Observation?single=x")
    await admin.put_ok(measured(1, note=[{"text": "ab"}, {"text": "cd"}]))
    await admin.put_ok(measured(2, note=[{"text": "xyz"}]))
    assert await admin.ids("Observation?single=yz") == ["o2"]


async def test_the_definitions_of_r4_itself_change_nothing(admin: Api) -> None:
    url = "http://hl7.org/fhir/SearchParameter/clinical-code"
    await admin.put_ok(definition("code", url=url, expression="Observation.code", status="active"))
    assert (await admin.get("/fhir/Observation?code=x", prefer="handling=strict")).status_code == 200
    assert not parameters.registry().parameters("Observation").parameters["code"].is_custom
