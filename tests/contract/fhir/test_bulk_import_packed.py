"""`$import` of inputs large enough for a process of their own: what is packed there equals what any write leaves."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
import pytest_asyncio

from fhir_server.bulk import preparation_process
from fhir_server.bulk.preparation_process import LARGE_BYTES, InProcess
from fhir_server.model.resource import instant
from fhir_server.search.index import extractor
from tests.contract.fhir.api import Api, ai_observation, observation, patient_resource, running
from tests.contract.fhir.test_bulk_import import errors, imported, ndjson
from tests.contract.fhir.test_official_examples import FAULTY, exact, examples
from tests.contract.fhir.test_signoff import SURGEON, provenance

ADMINISTRATOR = "system/*.cruds foramen/admin"
PADDING = "SYNTHETIC " * 60


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def admin(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An administrator of a server with the usual batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "100")
        async with running(module_database_url) as (_, client):
            yield Api(client, ADMINISTRATOR)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process ids of the children that prepared an input."""
    found: list[int] = []

    class Noted(InProcess):
        def __init__(self, preparer: Any) -> None:
            super().__init__(preparer)
            found.append(self._pid)

    monkeypatch.setattr(preparation_process, "InProcess", Noted)
    return found


def are_gone(children: list[int]) -> bool:
    return all(not Path(f"/proc/{pid}").exists() for pid in children)


def many(prefix: str, count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {**observation(f"Patient/{prefix}-{n % 7}", code=f"{prefix}{n % 5}"), "id": f"{prefix}-{n}",
         "note": [{"text": PADDING}], **more}
        for n in range(count)
    ]  # fmt: skip


@pytest.mark.fhir_definitions
async def test_official_examples_lie_in_the_record_as_if_written_one_by_one(
    admin: Api, module_database_url: str, children: list[int]
) -> None:
    chooser = random.Random(7)
    sent = {}
    for name, body in chooser.sample(examples(), 700):
        data = orjson.loads(body)
        if name not in FAULTY and len(body) < 20_000 and "id" in data and data["resourceType"] != "SearchParameter":
            sent[f"{data['resourceType']}/{data['id']}"] = body
    text = b"".join(body.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" for body in sent.values())
    assert len(text) > LARGE_BYTES
    manifest = await imported(admin, text)
    assert manifest["refused"] == 0, await errors(admin, manifest)
    assert sum(item["created"] for item in manifest["output"]) == len(sent)
    assert len(children) == 1
    assert are_gone(children)
    with psycopg.connect(module_database_url) as connection:
        rows = connection.execute(
            "SELECT row, type, id, version, updated, method, present, low, high, patients, content FROM fhir.resource"
            " WHERE type || '/' || id = ANY(%s)",
            [list(sent)],
        ).fetchall()
        assert len(rows) == len(sent)
        for row, kind, logical_id, version, updated, method, present, low, high, patients, content in rows:
            stored = exact(content)
            meta = stored.pop("meta")
            original = exact(sent[f"{kind}/{logical_id}"])
            assert (meta.pop("versionId"), meta.pop("lastUpdated")) == ("1", instant(updated))
            assert meta == {n: v for n, v in original.pop("meta", {}).items() if n not in ("versionId", "lastUpdated")}
            assert stored == original
            values = extractor(kind, "http://127.0.0.1:8000/fhir").extract(orjson.loads(content), logical_id)
            assert (version, method, present, low, high) == (1, "PUT", values.present, values.low, values.high)
            assert len(patients) == len(values.patients)
            own = [row]
            found = connection.execute("SELECT hash, low, high FROM fhir.posting WHERE row = %s", own).fetchall()
            assert sorted(found) == sorted((value, low, high) for value in values.postings)
            found = connection.execute("SELECT path, low, high FROM fhir.date_value WHERE row = %s", own).fetchall()
            assert set(found) == set(values.dates)
            found = connection.execute("SELECT path, low, high FROM fhir.number_value WHERE row = %s", own).fetchall()
            assert set(found) == set(values.numbers)
            found = connection.execute("SELECT path, value FROM fhir.string_value WHERE row = %s", own).fetchall()
            assert set(found) == set(values.strings)


async def test_new_known_repeated_and_bad_lines_of_one_batch(admin: Api, children: list[int]) -> None:
    await admin.put_ok({**observation("Patient/mix-1", code="before"), "id": "mix-3"})
    rows: list[Any] = many("mix", 450)
    rows.insert(100, {**rows[50], "status": "amended"})
    rows.insert(200, b'{"resourceType":"Observation","id":"mix-bad"}')
    rows.insert(300, {**ai_observation("Patient/mix-1"), "id": "mix-ai"})
    rows.insert(301, {**ai_observation("Patient/mix-1"), "id": "mix-signed", "status": "final"})
    body = ndjson(*rows)
    assert len(body) > LARGE_BYTES
    manifest = await imported(admin, body)
    assert manifest["output"] == [{"type": "Observation", "count": 452, "created": 450, "updated": 2}]
    found = await errors(admin, manifest)
    assert [(code, text.partition(":")[0]) for code, text in found] == [
        ("required", "body line 201"),
        ("business-rule", "body line 302"),
    ]
    assert len(children) == 1
    for name, versions in (("mix-3", "2"), ("mix-50", "2"), ("mix-51", "1"), ("mix-ai", "1")):
        assert (await admin.get(f"/fhir/Observation/{name}")).json()["meta"]["versionId"] == versions
    assert (await admin.get("/fhir/Observation/mix-50")).json()["status"] == "amended"
    assert len(await admin.ids("Observation?code=mix2&_count=500")) == 90
    assert (await admin.get("/fhir/Observation/mix-3/_history/1")).json()["code"]["coding"][0]["code"] == "before"


async def test_the_same_input_again_makes_second_versions(admin: Api, children: list[int]) -> None:
    body = ndjson(*many("again", 450))
    first, second = await imported(admin, body), await imported(admin, body)
    assert first["output"] == [{"type": "Observation", "count": 450, "created": 450, "updated": 0}]
    assert second["output"] == [{"type": "Observation", "count": 450, "created": 0, "updated": 450}]
    assert len(await admin.ids("Observation?code=again1&_count=500")) == 90
    assert len(children) == 2
    assert are_gone(children)


async def test_a_signature_counts_for_its_batch_when_it_is_written_itself(admin: Api) -> None:
    signed = {**ai_observation("Patient/sign-1"), "status": "final"}
    rows = [*many("sign", 450), {**signed, "id": "sign-a"}, {**provenance("Observation/sign-a"), "id": "sign-p"}]
    surgeon = admin.as_(f"{ADMINISTRATOR} user/*.cruds", **SURGEON)
    manifest = await imported(surgeon, ndjson(*rows))
    assert manifest["refused"] == 0, await errors(surgeon, manifest)
    narrow = admin.as_("user/Observation.cruds foramen/admin", **SURGEON)
    rows = [{**signed, "id": "sign-b"}, {**provenance("Observation/sign-b"), "id": "sign-q"}]
    found = await errors(narrow, await imported(narrow, ndjson(*rows)))
    assert [code for code, _ in found] == ["business-rule", "forbidden"]
    assert (await admin.get("/fhir/Observation/sign-b")).status_code == 404


async def test_scopes_hold_for_what_is_packed(admin: Api) -> None:
    narrow = admin.as_("system/Patient.c foramen/admin")
    rows = [*many("scope", 450), {**patient_resource(), "id": "scope-p"}]
    manifest = await imported(narrow, ndjson(*rows))
    assert manifest["refused"] == 450
    assert manifest["output"] == [{"type": "Patient", "count": 1, "created": 1, "updated": 0}]
    assert await admin.ids("Observation?code=scope1") == []


async def test_a_batch_is_one_audit_event_that_tells_how_much(admin: Api) -> None:
    await imported(admin, ndjson(*many("told", 450)))
    events = (await admin.get("/fhir/AuditEvent?entity=Observation/told-0")).json()["entry"]
    assert len(events) == 1
    entities = events[0]["resource"]["entity"]
    assert entities[-1]["description"] == "456 resources"  # All lines and the patients but the first.


async def test_a_parameter_of_the_same_import_finds_all_of_it(admin: Api) -> None:
    parameter = {
        "resourceType": "SearchParameter", "id": "bulk-note", "url": "https://foramen.example/fhir/bulk-note",
        "name": "BulkNote", "status": "active", "description": "SYNTHETIC", "code": "bulk-device",
        "base": ["Observation"], "type": "token", "expression": "Observation.bodySite",
    }  # fmt: skip
    site = {"coding": [{"system": "http://snomed.info/sct", "code": "bulk-site"}]}
    rows = [parameter, *many("custom", 1500, bodySite=site)]
    manifest = await imported(admin, ndjson(*rows))
    assert manifest["refused"] == 0
    for _ in range(200):
        answer = await admin.get("/fhir/Observation?bulk-device=bulk-site&_summary=count", prefer="handling=strict")
        if answer.status_code == 200:
            break
        await asyncio.sleep(0.1)
    assert answer.json()["total"] == 1500


async def test_a_child_that_dies_costs_an_attempt_and_no_line(
    admin: Api, children: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = InProcess._ask
    killed: list[int] = []

    def dies(self: InProcess, numbers: Any) -> Any:
        if not killed and len(children) == 1:
            killed.append(self._pid)
            os.kill(self._pid, 9)
        return original(self, numbers)

    monkeypatch.setattr(InProcess, "_ask", dies)
    manifest = await imported(admin, ndjson(*many("dies", 1200)))
    assert manifest["output"] == [{"type": "Observation", "count": 1200, "created": 1200, "updated": 0}]
    assert len(children) == 2
    assert are_gone(children)
