"""Erasures that a hold stops or a fault breaks off, and who may approve them (again). All data SYNTHETIC.

PIPL art. 47; docs/api/erase.md, ADR 0028
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from fhir_server.store import legal_holds
from tests.contract.fhir.api import Api, observation, refused, running
from tests.contract.fhir.subject_world import (
    ADMIN,
    FAMILY,
    HIDDEN,
    admin,
    approved,
    asked,
    finished,
    parameters,
    record,
    values,
)

MANY = 150
"""More than goes in one transaction."""
STUDY = "1.2.276.0.7230010.3.99.1"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path_factory.mktemp("subject-home")))
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        async with running(module_database_url) as (_, client):
            yield Api(client)


@pytest_asyncio.fixture(loop_scope="session")
async def database(module_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(module_database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def long_record(world: Api, p: str, year: int) -> None:
    """A record that takes several transactions; its Encounter and its study are of the first."""
    await record(world, p, year)
    date = f"{year}-03-01T08:00:00Z"
    entries = [
        {
            "request": {"method": "PUT", "url": f"Observation/{p}-{n}"},
            "resource": {**observation(f"Patient/{p}", date=date), "id": f"{p}-{n}", "note": [{"text": HIDDEN}]},
        }
        for n in range(MANY)
    ]
    assert (await world.transaction(*entries)).status_code == 200


async def hold(api: Api, p: str) -> httpx.Response:
    body = parameters(reason="lawsuit", basis="Civil Procedure Law art. 84")
    return await api.post(f"/fhir/Patient/{p}/$legal-hold", body)


def hold_id(placed: httpx.Response) -> str:
    assert placed.status_code == 200, placed.text
    return str(values(placed.json()["parameter"][0]["part"])["id"])


async def let_go(api: Api, p: str, held: str) -> None:
    body = parameters(hold=held, reason="the case is closed")
    assert (await api.post(f"/fhir/Patient/{p}/$legal-hold-release", body)).status_code == 200


async def left(database: asyncpg.Connection, p: str) -> int:
    return int(await database.fetchval("SELECT count(*) FROM fhir.resource WHERE id ~ ('^' || $1 || '-[0-9]+$')", p))


async def test_a_hold_that_comes_before_the_first_removal_keeps_everything(world: Api, database: asyncpg.Connection):
    one, two, clinician = admin(world, "chief"), admin(world, "lawyer"), world.as_("user/*.cruds")
    await record(world, "early")
    request = await asked(one, "early")
    assert (await approved(two, "early", request)).status_code == 202
    held = hold_id(await hold(one, "early"))  # The job still waits for writes under way.
    outcome = await finished(one, "early", request)
    assert outcome["status"] == "held", outcome
    assert outcome["decision"] == "held"
    assert outcome["holds"] == held
    assert outcome["removedVersions"] == 0
    # All of it is there, and closed: also what is theirs only because nobody else refers to it.
    names = ("Patient/early", "Observation/early-o", "Encounter/early-visit", "ImagingStudy/early-study")
    for name in (*names, "Binary/early-b1", "Binary/early-b2", "Binary/early-b3"):
        assert (await one.get(f"/fhir/{name}")).status_code == 200, name
        refused(await clinician.get(f"/fhir/{name}"), 404, "not-found")
    assert await clinician.ids(f"Patient?name={FAMILY}&_id=early") == []
    assert await clinician.ids("Binary?_id=early-b1,early-b2,early-b3,early-b4") == ["early-b4"]
    refused(await clinician.post("/fhir/Observation", observation("Patient/early")), 409, "business-rule")
    # It is over: nobody approves it again, under the hold or after; a person opens the record again.
    refused(await approved(two, "early", request), 409, "conflict")
    await let_go(one, "early", held)
    refused(await approved(two, "early", request), 409, "conflict")
    body = parameters(request=request, decision="lift", note="the court wants it in use")
    assert (await two.post("/fhir/Patient/early/$erase-decide", body)).status_code == 200
    for name in (*names, "Binary/early-b2"):
        assert (await clinician.get(f"/fhir/{name}")).status_code == 200, name


async def test_a_hold_in_the_middle_keeps_what_is_left(world: Api, database: asyncpg.Connection):
    """From the moment the hold is acknowledged nothing more is removed; what was removed before is said."""
    one, two, clinician = admin(world, "chief"), admin(world, "lawyer"), world.as_("user/*.cruds")
    await long_record(world, "middle", 1970)
    request = await asked(one, "middle")
    assert (await approved(two, "middle", request)).status_code == 202
    # The queue of the lock is made: first one batch of the job, then the hold, then whatever comes.
    await database.execute("SELECT pg_advisory_lock($1)", legal_holds._LOCK)
    await _waiting(database, 1)
    placing = asyncio.create_task(hold(one, "middle"))
    await _waiting(database, 2)
    assert await left(database, "middle") == MANY
    await database.execute("SELECT pg_advisory_unlock($1)", legal_holds._LOCK)
    held = hold_id(await placing)
    there = await left(database, "middle")
    assert 0 < there < MANY
    outcome = await finished(one, "middle", request)
    assert outcome["status"] == "held", outcome
    assert outcome["holds"] == held
    assert int(outcome["removedVersions"]) >= MANY - there
    assert outcome["studies"] == STUDY  # Whose images nobody is told to delete yet.
    assert await left(database, "middle") == there
    assert (await one.get("/fhir/Patient/middle")).status_code == 200
    refused(await clinician.get("/fhir/Patient/middle"), 404, "not-found")

    # Once it is released, two people decide anew.
    refused(await one.post("/fhir/Patient/middle/$erase", parameters(reason="again")), 409, "business-rule")
    await let_go(one, "middle", held)
    again = await asked(one, "middle")
    assert (await approved(two, "middle", again)).status_code == 202
    assert (await finished(one, "middle", again))["status"] == "erased"
    assert await left(database, "middle") == 0


async def _waiting(database: asyncpg.Connection, count: int) -> None:
    """Return when so many wait for the lock between holds and removals."""
    for _ in range(400):
        found = await database.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = $1::bigint"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            legal_holds._LOCK,
        )
        if found == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{found} wait for the lock, not {count}")


async def test_one_person_with_two_accounts_is_one_person(world: Api):
    await record(world, "alone")

    def account(name: str, person: str) -> Api:
        return world.as_(ADMIN, sub=name, client_id=f"console-{name}", fhirUser=person)

    request = await asked(account("chief", "Practitioner/p"), "alone")
    refused(await approved(account("chief-of-night", "Practitioner/p"), "alone", request), 403, "forbidden")
    lent = {"delegated_by": [{"sub": "chief"}]}
    night = world.as_(ADMIN, sub="night", client_id="console-night", fhirUser="Practitioner/q", **lent)
    refused(await approved(night, "alone", request), 403, "forbidden")
    status = values((await admin(world, "chief").get("/fhir/Patient/alone/$erase")).json()["parameter"][0]["part"])
    assert status["status"] == "requested"
    assert (await world.get("/fhir/Patient/alone")).status_code == 200
    assert (await approved(account("lawyer", "Practitioner/q"), "alone", request)).status_code == 202
    assert (await finished(admin(world, "chief"), "alone", request))["status"] == "erased"


async def test_a_failed_erasure_goes_on_as_it_was_decided(world: Api, database: asyncpg.Connection):
    """An outpatient's record whose time is over. Without its Encounter it would have to be kept twice as long."""
    one, two, clinician = admin(world, "chief"), admin(world, "lawyer"), world.as_("user/*.cruds")
    await long_record(world, "broken", datetime.now(UTC).year - 20)
    preview = (await one.get("/fhir/Patient/broken/$erase-preview")).json()["parameter"]
    assert values(preview)["decision"] == "erase"
    await _break(database, f"broken-{MANY - 1}")
    request = await asked(one, "broken")
    assert (await approved(two, "broken", request)).status_code == 202
    refused(await approved(two, "broken", request), 409, "conflict")  # It is under way.
    told = await _failed(one, "broken")
    assert told["status"] == "approved"
    assert told["progress"].endswith("approve once more to go on")
    assert 0 < await left(database, "broken") < MANY
    assert (await one.get("/fhir/Encounter/broken-visit")).status_code == 404  # The first batch is gone.
    refused(await clinician.get("/fhir/Patient/broken"), 404, "not-found")

    await database.execute("DROP TRIGGER synthetic_fault ON fhir.resource")
    refused(await approved(one, "broken", request), 403, "forbidden")
    held = hold_id(await hold(one, "broken"))
    refused(await approved(two, "broken", request), 409, "business-rule")
    await let_go(one, "broken", held)
    # The job and its checkpoint may be long gone by then.
    await database.execute("DELETE FROM fhir.job WHERE kind = 'erasure' AND status = 'failed'")
    assert (await approved(admin(world, "deputy"), "broken", request)).status_code == 202
    outcome = await finished(one, "broken", request)
    assert outcome["status"] == "erased", outcome
    assert outcome["decidedBy"] == "deputy"
    counts = {values(p["part"])["type"]: values(p["part"])["count"] for p in preview if p["name"] == "resources"}
    assert {part["name"]: part["valueInteger"] for part in outcome["resources"]} == counts
    assert outcome["removedVersions"] == values(preview)["versions"]
    task = (await world.get(f"/fhir/{outcome['imagingTask']}")).json()
    assert [item["valueUri"] for item in task["input"]] == [f"urn:oid:{STUDY}"]
    assert await left(database, "broken") == 0
    refused(await one.get("/fhir/Patient/broken"), 404, "not-found")
    refused(await approved(two, "broken", request), 409, "conflict")


async def _break(database: asyncpg.Connection, logical_id: str) -> None:
    """Let the database refuse to remove one resource, as a damaged page would."""
    await database.execute(
        "CREATE OR REPLACE FUNCTION fhir.synthetic_fault() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'SYNTHETIC fault' USING ERRCODE = 'data_corrupted'; END $$"
    )
    await database.execute(
        "CREATE TRIGGER synthetic_fault BEFORE DELETE ON fhir.resource FOR EACH ROW"
        f" WHEN (OLD.id = '{logical_id}') EXECUTE FUNCTION fhir.synthetic_fault()"
    )


async def _failed(api: Api, p: str) -> dict[str, Any]:
    for _ in range(600):
        (item,) = (await api.get(f"/fhir/Patient/{p}/$erase")).json()["parameter"]
        found = values(item["part"])
        if found.get("progress", "").startswith("failed"):
            return found
        assert found["status"] == "approved", found
        await asyncio.sleep(0.1)
    raise AssertionError("the erasure does not fail")
