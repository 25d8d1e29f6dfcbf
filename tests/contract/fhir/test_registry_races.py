"""No write is missed by the build of a custom search parameter, however late it comes and however often.

ADR 0015. All data SYNTHETIC.
"""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from fhir_server.store.rows import RowNumbers
from tests.contract.fhir.api import EVERYTHING, Api, observation, running
from tests.contract.fhir.test_custom_search_parameters import definition, wait_until_complete

ADMIN = f"{EVERYTHING} foramen/admin"


def _measured(logical_id: str, method: str = "M1") -> dict[str, Any]:
    method_of = {"coding": [{"system": "urn:m", "code": method}]}
    return {**observation("Patient/x"), "id": logical_id, "method": method_of}


class _Held(RowNumbers):
    """Row numbers of a process that stands still for a while: behind the extraction, before the first statement."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def take(self, connection: Any, count: int) -> list[int]:
        if count and not self.go_on.is_set():
            self.reached.set()
            await self.go_on.wait()
        return await super().take(connection, count)


@pytest.mark.parametrize("kind", ["create", "transaction", "long transaction", "replace"])
async def test_a_write_that_stands_still_while_a_parameter_is_built_is_not_missed(database_url: str, kind: str) -> None:
    async with running(database_url) as (slow, first), running(database_url) as (_, second):
        writer, admin = Api(first), Api(second, ADMIN)
        await writer.put_ok(_measured("before"))
        held = _Held()
        slow._server.rows = held
        held.go_on.clear()
        late = _measured("late")
        if kind == "create":
            writing = asyncio.create_task(writer.put("/fhir/Observation/late", late))
        elif kind.endswith("transaction"):
            many = 20 if kind.startswith("long") else 4
            entries = [
                {"resource": _measured(name), "request": {"method": "PUT", "url": f"Observation/{name}"}}
                for name in ("late", *(f"l{number}" for number in range(many)))
            ]
            writing = asyncio.create_task(writer.transaction(*entries))
        else:  # Before it is written that the resource "late" is there, nothing is locked but "before".
            entries = [
                {"resource": _measured(name), "request": {"method": "PUT", "url": f"Observation/{name}"}}
                for name in ("late", "before")
            ]
            writing = asyncio.create_task(writer.transaction(*entries))
        await held.reached.wait()
        await admin.put_ok(definition("stood"))
        if kind in ("replace", "long transaction"):  # Its database transaction is open: the build waits for it.
            await asyncio.sleep(0.5)
        else:
            await wait_until_complete(admin, "Observation?stood=M1")
            assert await admin.ids("Observation?stood=M1") == ["before"]
        held.go_on.set()
        assert (await writing).status_code in (200, 201)
        await wait_until_complete(admin, "Observation?stood=M1")
        assert {"before", "late"} <= set(await admin.ids("Observation?stood=M1&_count=100"))
        # And the entry is one that the next writer finds: an update moves it.
        await admin.put_ok(_measured("late", "M2"))
        assert await admin.ids("Observation?stood=M2") == ["late"]
        assert "late" not in await admin.ids("Observation?stood=M1&_count=100")


async def test_a_transaction_held_open_over_the_whole_build_is_waited_for(database_url: str) -> None:
    async with running(database_url) as (_, client):
        admin = Api(client, ADMIN)
        await admin.put_ok(_measured("before"))
        with psycopg.connect(database_url) as other:
            other.execute("SELECT pg_current_xact_id()")
            await admin.put_ok(definition("open"))
            await asyncio.sleep(4)
            found = (await admin.get("/fhir/Observation?open=M1")).json()
            assert any(item["search"]["mode"] == "outcome" for item in found["entry"])
            other.commit()
        await wait_until_complete(admin, "Observation?open=M1")
        assert await admin.ids("Observation?open=M1") == ["before"]


async def test_what_is_written_again_and_again_is_reached(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update leaves entries alone that stay the same: what the walk has not reached yet it must still reach."""
    monkeypatch.setenv("FORAMEN_FHIR_REINDEX_BATCH", "1")
    async with running(database_url) as (_, client):
        admin = Api(client, ADMIN)
        for number in range(30):
            await admin.put_ok(_measured(f"o{number}"))
        done = False

        async def keep_writing() -> int:
            count = 0
            while not done:
                await admin.put_ok({**_measured("o0"), "note": [{"text": f"SYNTHETIC {count}"}]})
                count += 1
            return count

        writing = asyncio.create_task(keep_writing())
        await admin.put_ok(definition("hot"))
        await wait_until_complete(admin, "Observation?hot=M1")
        done = True
        assert await writing > 50
        assert len(await admin.ids("Observation?hot=M1&_count=100")) == 30
