"""`$import` as a client meets it: uploads, files, what is refused and how it is told, versions, access."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, ai_observation, observation, patient_resource, refused, running

ADMINISTRATOR = "system/*.cruds foramen/admin"
NDJSON = "application/fhir+ndjson"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def admin(module_database_url: str, home: Path) -> AsyncIterator[Api]:
    """An administrator of a server that imports in small batches."""
    (home / "in").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(home))
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        patch.setenv("FORAMEN_FHIR_IMPORT_FOLDER", str(home / "in"))
        patch.setenv("FORAMEN_FHIR_IMPORT_BATCH", "10")
        patch.setenv("FORAMEN_FHIR_IMPORT_MAX_BYTES", "200000")
        patch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "100")
        patch.setenv("FORAMEN_MAX_BODY_BYTES", "50000")
        async with running(module_database_url) as (_, client):
            yield Api(client, ADMINISTRATOR)


def ndjson(*rows: dict[str, Any] | bytes) -> bytes:
    return b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in rows)


def uploads(home: Path) -> list[Path]:
    return list(home.glob("bulk/*/upload.ndjson"))


async def finished(api: Api, response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    for _ in range(400):
        found = await api.get(response.headers["content-location"])
        if found.status_code != 202:
            assert found.status_code == 200, found.text
            manifest: dict[str, Any] = found.json()
            return manifest
        await asyncio.sleep(0.03)
    raise AssertionError("the import does not end")


async def imported(api: Api, body: bytes, **headers: str) -> dict[str, Any]:
    return await finished(api, await api.post("/fhir/$import", body, content_type=NDJSON, **headers))


async def errors(api: Api, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """(issue code, diagnostics) of every refused line."""
    found = []
    for item in manifest["error"]:
        for line in (await api.get(item["url"])).content.splitlines():
            outcome = orjson.loads(line)
            assert outcome["resourceType"] == "OperationOutcome"
            found.append((outcome["issue"][0]["code"], outcome["issue"][0]["diagnostics"]))
    return found


async def test_an_upload_becomes_the_record(admin: Api, home: Path) -> None:
    rows = [{**patient_resource(), "id": "up-1"}]
    rows += [{**observation("Patient/up-1", code=f"up-{n}"), "id": f"up-{n}"} for n in range(25)]
    manifest = await imported(admin, ndjson(*rows))
    assert manifest["output"] == [
        {"type": "Observation", "count": 25, "created": 25, "updated": 0},
        {"type": "Patient", "count": 1, "created": 1, "updated": 0},
    ]
    assert manifest["error"] == []
    stored = (await admin.get("/fhir/Observation/up-7")).json()
    assert stored.pop("meta")["versionId"] == "1"
    assert stored == rows[8]
    assert await admin.ids("Observation?code=up-7&patient=up-1") == ["up-7"]
    assert uploads(home) == []


async def test_ids_are_kept_and_history_is_right(admin: Api) -> None:
    one = {**patient_resource(), "id": "twice-1"}
    await imported(admin, ndjson(one, {**one, "gender": "other"}))
    manifest = await imported(admin, ndjson({**one, "gender": "unknown", "meta": {"versionId": "77"}}))
    assert manifest["output"] == [{"type": "Patient", "count": 1, "created": 0, "updated": 1}]
    history = (await admin.get("/fhir/Patient/twice-1/_history")).json()["entry"]
    found = [(entry["resource"]["meta"]["versionId"], entry["resource"]["gender"]) for entry in history]
    assert found == [("3", "unknown"), ("2", "other"), ("1", "female")]
    await admin.delete("/fhir/Patient/twice-1")
    await imported(admin, ndjson(one))
    assert (await admin.get("/fhir/Patient/twice-1")).json()["meta"]["versionId"] == "5"


async def test_without_an_id_it_is_created(admin: Api) -> None:
    await imported(admin, ndjson(observation("Patient/up-1", code="nameless")))
    assert len(await admin.ids("Observation?code=nameless")) == 1


async def test_what_is_refused_is_told_by_line_and_the_rest_is_written(admin: Api) -> None:
    secret = "Geheimnis"
    body = ndjson(
        {**patient_resource(), "id": "ok-1"},
        b'{"resourceType":"Patient","id":"broken-1"',
        b"",
        {"resourceType": "Observation", "id": "broken-2"},
        {"resourceType": "Nonsense", "id": "broken-3"},
        {**patient_resource(), "id": "x" * 65},
        {**patient_resource(), "id": "broken-4", "gender": secret},
        {**observation("Patient?identifier=1"), "id": "broken-5"},
        b'{"resourceType":"Patient","id":"broken-6","name":[{"text":"' + b"x" * 60_000 + b'"}]}',
        b"[1]",
        {**patient_resource(), "id": "ok-2"},
    )
    manifest = await imported(admin, body)
    assert manifest["output"] == [{"type": "Patient", "count": 2, "created": 2, "updated": 0}]
    assert manifest["refused"] == 8
    found = await errors(admin, manifest)
    assert [text.partition(":")[0] for _, text in found] == [f"body line {n}" for n in (2, 4, 5, 6, 7, 8, 9, 10)]
    codes = [code for code, _ in found]
    assert codes[0] == "structure"
    assert codes[1] == "required"
    assert codes[2] == "structure"
    assert codes[5:] == ["not-supported", "too-long", "structure"]
    assert not any(secret in text for _, text in found)
    assert await admin.ids("Patient?_id=ok-1,ok-2,broken-4") in (["ok-1", "ok-2"], ["ok-2", "ok-1"])


async def test_gzip(admin: Api) -> None:
    body = ndjson(*({**patient_resource(), "id": f"zip-{n}"} for n in range(30)))
    manifest = await imported(admin, gzip.compress(body), content_encoding="gzip")
    assert manifest["output"][0]["created"] == 30
    cut = await admin.post("/fhir/$import", gzip.compress(body)[:-20], content_type=NDJSON, content_encoding="gzip")
    await failed(admin, cut, "structure")
    bomb = gzip.compress(b"\n" * 300_000)
    await failed(admin, await admin.post("/fhir/$import", bomb, content_type=NDJSON), "too-long")
    refused(await admin.post("/fhir/$import", body, content_type=NDJSON, content_encoding="br"), 415, "not-supported")


async def failed(api: Api, response: httpx.Response, code: str) -> None:
    assert response.status_code == 202
    for _ in range(200):
        found = await api.get(response.headers["content-location"])
        if found.status_code != 202:
            refused(found, 500, code)
            return
        await asyncio.sleep(0.03)
    raise AssertionError("it does not fail")


def inputs(*urls: str, **more: str) -> dict[str, Any]:
    listed = [
        {
            "name": "input",
            "part": [{"name": "url", "valueUrl": url}, *({"name": n, "valueCode": v} for n, v in more.items())],
        }
        for url in urls
    ]
    return {"resourceType": "Parameters", "parameter": listed}


async def test_files_below_the_import_folder(admin: Api, home: Path) -> None:
    (home / "in" / "a.ndjson").write_bytes(ndjson(*({**patient_resource(), "id": f"file-{n}"} for n in range(12))))
    (home / "in" / "b.ndjson.gz").write_bytes(gzip.compress(ndjson({**observation("Patient/file-1"), "id": "file-o"})))
    urls = [f"file://{home}/in/a.ndjson", f"file://{home}/in/b.ndjson.gz"]
    manifest = await finished(admin, await admin.post("/fhir/$import", inputs(*urls)))
    assert {item["type"]: item["created"] for item in manifest["output"]} == {"Patient": 12, "Observation": 1}
    manifest = await finished(admin, await admin.post("/fhir/$import", inputs(urls[0], type="Observation")))
    assert manifest["refused"] == 12


async def test_nothing_outside_is_read_or_fetched(admin: Api, home: Path) -> None:
    (home / "outside.ndjson").write_bytes(b"{}")
    (home / "in" / "link.ndjson").symlink_to(home / "outside.ndjson")
    for url, code in (
        (f"file://{home}/outside.ndjson", "not-found"),
        (f"file://{home}/in/../outside.ndjson", "not-found"),
        (f"file://{home}/in/%2e%2e/outside.ndjson", "not-found"),
        (f"file://{home}/in/link.ndjson", "not-found"),
        (f"file://{home}/in/none.ndjson", "not-found"),
        (f"file://{home}/in", "not-found"),
        ("file:///etc/passwd", "not-found"),
        ("file://elsewhere/in/a.ndjson", "not-supported"),
        ("http://127.0.0.1:1/a.ndjson", "not-supported"),
        ("https://example.org/a.ndjson", "not-supported"),
        ("a.ndjson", "not-supported"),
    ):
        refused(await admin.post("/fhir/$import", inputs(url)), 400, code)
    refused(await admin.post("/fhir/$import", {"resourceType": "Parameters"}), 400, "required")


async def test_only_administrators_import_and_their_scopes_and_sign_off_count(admin: Api) -> None:
    body = ndjson({**patient_resource(), "id": "scope-1"})
    refused(await admin.as_("system/*.cruds").post("/fhir/$import", body, content_type=NDJSON), 403, "forbidden")
    narrow = admin.as_("system/Observation.cud foramen/admin")
    found = await errors(narrow, await imported(narrow, body))
    assert found[0][0] == "forbidden"
    signed = {**ai_observation("Patient/up-1"), "id": "signed-1", "status": "final"}
    found = await errors(admin, await imported(admin, ndjson(signed)))
    assert found[0][0] == "business-rule"


async def test_empty_and_oversized_uploads_leave_nothing(admin: Api, home: Path) -> None:
    before = set((home / "bulk").iterdir())
    refused(await admin.post("/fhir/$import", b"", content_type=NDJSON), 400, "required")
    refused(await admin.post("/fhir/$import", b"x" * 200_001, content_type=NDJSON), 413, "too-long")
    assert set((home / "bulk").iterdir()) == before


async def test_every_batch_is_audited(admin: Api) -> None:
    await imported(admin, ndjson(*({**patient_resource(), "id": f"audit-{n}"} for n in range(15))))
    events = (await admin.get("/fhir/AuditEvent?entity=Patient/audit-3")).json()["entry"]
    assert any(
        entity.get("what", {}).get("reference") == "Patient/audit-3"
        for event in events
        for entity in event["resource"]["entity"]
    )


async def test_an_import_of_several_records_is_in_nobodys(admin: Api) -> None:
    await imported(
        admin,
        ndjson(
            {**patient_resource(), "id": "apart-1"},
            *({**observation("Patient/apart-2"), "id": f"apart-o{n}"} for n in range(3)),
        ),
    )
    events = await admin.ids("AuditEvent?entity=Patient/apart-1&entity=Observation/apart-o1")
    assert len(events) == 1
    assert await admin.ids("AuditEvent?patient=Patient/apart-2") == events
    for name in ("apart-1", "apart-2"):
        assert await admin.as_("patient/*.rs", patient=name, fhirUser=f"Patient/{name}").ids("AuditEvent") == []


async def test_the_tag_of_every_type_survives_deletion(admin: Api) -> None:
    tag = ai_observation("Patient/up-1")["meta"]
    made = {
        "resourceType": "ServiceRequest",
        "id": "washed",
        "status": "draft",
        "intent": "proposal",
        "subject": {"reference": "Patient/up-1"},
    }
    await admin.put_ok({**made, "meta": tag})
    assert (await admin.delete("/fhir/ServiceRequest/washed")).status_code == 204
    manifest = await imported(admin, ndjson({**made, "status": "active"}))
    assert [code for code, _ in await errors(admin, manifest)] == ["business-rule"]
