"""Requests made to cost much, to leave text in the audit, to slip past byte-level code, or to end in a 500.

OWASP API Security Top 10 (API4: unrestricted resource consumption), https://hl7.org/fhir/R4/json.html
"""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, entry, observation, patient_resource, refused

_MOST_S = 2.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database(module_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(module_database_url)
    yield connection
    await connection.close()


def _with_contained(count: int, *, ids: bool = True, referenced: bool = False) -> dict[str, Any]:
    named = [{"id": f"c{n}"} if ids else {} for n in range(count)]
    body = {
        **patient_resource(),
        "contained": [{"resourceType": "Organization", **name, "name": "SYNTHETIC"} for name in named],
    }
    if referenced:
        body["generalPractitioner"] = [{"reference": f"#c{n}"} for n in range(count)]
    return body


_CONTAINED = {
    "unreferenced": {},
    "referenced": {"referenced": True},
    "without id": {"ids": False},
}


@pytest.mark.parametrize("kind", list(_CONTAINED))
async def test_many_contained_resources(module_api: Api, kind: str) -> None:
    began = time.process_time()
    body = _with_contained(5000, **_CONTAINED[kind])
    refused(await module_api.post("/fhir/Patient", body), 422, "too-costly")
    response = await module_api.post("/fhir/Patient/$validate", body)
    assert response.status_code in (200, 422), response.text
    assert any(issue["code"] == "too-costly" for issue in response.json()["issue"])
    outcome = (await module_api.transaction(entry("POST", "Patient", body))).json()
    assert outcome["issue"][0]["code"] == "too-costly", outcome
    below = _with_contained(900, **_CONTAINED[kind])
    response = await module_api.post("/fhir/Patient", below)
    if kind == "unreferenced":
        assert "dom-3" in refused(response, 422, "invariant")["issue"][0]["diagnostics"]
    else:
        assert response.status_code == 201, response.text[:300]
    assert time.process_time() - began < _MOST_S


async def test_gzip_of_many_members(module_api: Api) -> None:
    began = time.process_time()
    bomb = gzip.compress(b"", mtime=0) * 200_000 + gzip.compress(orjson.dumps(patient_resource()))
    refused(await module_api.post("/fhir/Patient", bomb, content_encoding="gzip"), 400, "too-costly")
    assert time.process_time() - began < _MOST_S
    text = orjson.dumps(patient_resource())
    several = b"".join(gzip.compress(text[n : n + 20]) for n in range(0, len(text), 20))
    assert (await module_api.post("/fhir/Patient", several, content_encoding="gzip")).status_code == 201


_NO_IDS = [
    "Patient/%00/Observation",
    "Patient/Anna%20Muster/Observation",
    "Patient/Anna%20Muster/*",
    "Patient/Anna%20Muster/_history",
    "Patient/Anna%20Muster/$everything",
    "Patient/%C3%BC/$meta",
    "$bulk-status/%00",
    "$bulk-file/%00",
    "$async-status/%00",
    "$reindex-status/%00",
    "$async-status/Anna%20Muster",
]


@pytest.mark.parametrize("path", _NO_IDS)
async def test_an_id_of_another_form_is_never_remembered(
    module_api: Api, database: asyncpg.Connection, path: str
) -> None:
    response = await module_api.get(f"/fhir/{path}")
    assert 400 <= response.status_code < 500, response.text[:300]
    assert "Muster" not in response.text
    if "$" in path:
        assert 400 <= (await module_api.delete(f"/fhir/{path}")).status_code < 500
    assert (await module_api.get("/fhir/AuditEvent?_count=1000")).status_code == 200
    count = "SELECT count(*) FROM fhir.resource WHERE type = 'AuditEvent' AND convert_from(content, 'UTF8') LIKE '%{}%'"
    for text in ("Muster", "\\\\u0000"):
        assert await database.fetchval(count.format(text)) == 0
    assert (await module_api.get("/fhir/AuditEvent/$meta")).status_code == 200


_ESCAPED = [
    b'{"resourceType":"Patient","id":"a","\\u0069d":"chosen"}',
    b'{"resourceType":"Patient","\\u0069d":"chosen","id":"a"}',
    b'{"resourceType":"Patient","meta":{"versionId":"9"},"m\\u0065ta":{"versionId":"7"}}',
    b'{"resourceType":"Patient","m\\u0065ta":{"versionId":"7"},"m\\u0065ta":{"versionId":"8"}}',
    b'{"resourceType":"Patient","resourceTyp\\u0065":"Observation"}',
]


@pytest.mark.parametrize("body", _ESCAPED)
async def test_a_member_given_twice_in_two_spellings(module_api: Api, body: bytes) -> None:
    response = await module_api.post("/fhir/Patient", body)
    assert response.status_code == 400, response.text
    bundle = b'{"resourceType":"Bundle","type":"transaction","entry":[{"resource":%b,"request":%b}]}'
    request = b'{"method":"POST","url":"Patient"}'
    response = await module_api.post("/fhir/", bundle % (body, request))
    assert response.status_code == 400, response.text


def _pairs(text: bytes) -> list[str]:
    """Names of all members of the outermost object, repeats included."""
    import json

    found: list[Any] = json.loads(text, object_pairs_hook=list)
    return [name for name, _ in found]


async def test_escaped_names_mean_what_they_say(module_api: Api) -> None:
    body = b'{"resourceType":"Patient","\\u0069d":"esc1","m\\u0065ta":{"versionId":"77"},"language":"de"}'
    response = await module_api.send("PUT", "/fhir/Patient/esc1", body)
    assert response.status_code == 201, response.text
    text = (await module_api.get("/fhir/Patient/esc1")).content
    names = _pairs(text)
    assert len(names) == len(set(names)), text
    assert orjson.loads(text)["meta"]["versionId"] == "1"
    for body in (
        b'{"resourceType":"Patient","\\u0069d":"chosen","language":"de"}',
        b'{"resourceType":"Patient","m\\u0065ta":{"versionId":"77"},"language":"de"}',
    ):
        response = await module_api.post("/fhir/Patient", body)
        assert response.status_code == 201
        text = (await module_api.get(f"/fhir/Patient/{response.json()['id']}")).content
        assert len(set(_pairs(text))) == len(_pairs(text)), text
        assert orjson.loads(text)["id"] == response.json()["id"] != "chosen"
        assert orjson.loads(text)["meta"]["versionId"] == "1"


async def test_escaped_references_of_a_transaction(module_api: Api) -> None:
    """What PHP writes: every slash escaped; and names written with escapes."""
    url = "http://client.example/fhir/Patient/9"
    items = [
        entry("POST", "Patient", patient_resource(), full_url=url),
        entry("POST", "Observation", observation(url)),
    ]
    body = orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": items})
    body = body.replace(b"/", b"\\/").replace(b'"reference"', b'"r\\u0065ference"')
    response = await module_api.post("/fhir/", body)
    assert response.status_code == 200, response.text
    patient, written = (item["response"]["location"].split("/")[1] for item in response.json()["entry"])
    stored = (await module_api.get(f"/fhir/Observation/{written}")).json()
    assert stored["subject"]["reference"] == f"Patient/{patient}"


def _cursor(*keys: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(keys)).decode().rstrip("=")


_BEYOND = [
    ("Patient/_history?_since=9999", 400),
    ("Patient/_history?_at=9999-12-31", 400),
    ("_history?_since=9999-12-31T23:59:59Z", None),
    ("_history?_at=0001", None),
    ("Patient/_history?_since=0001-01-01T00:00:00%2B14:00", None),
    (f"Patient/_history?_cursor={_cursor(1, 1 << 62, 1 << 40)}", 400),
    (f"Patient/_history?_cursor={_cursor(1, (1 << 63) + 5, 1)}", 400),
    (f"Patient/_history?_cursor={_cursor((1 << 63) - 1, 1, 1)}", 400),
    (f"Patient/_history?_cursor={_cursor(1, -(1 << 62), -(1 << 33))}", 400),
]


@pytest.mark.parametrize(("path", "status"), _BEYOND)
async def test_history_beyond_time(module_api: Api, path: str, status: int | None) -> None:
    response = await module_api.get(f"/fhir/{path}")
    assert response.status_code in ((status,) if status else (200, 400)), response.text


_ODD: list[tuple[str, dict[str, Any]]] = [
    ("PUT", {"ifMatch": 5}),
    ("PUT", {"ifNoneMatch": {}}),
    ("PUT", {"ifMatch": ["1"]}),
    ("POST", {"ifNoneExist": 7}),
    ("POST", {"ifNoneExist": {"a": 1}}),
    ("GET", {"ifNoneMatch": 5}),
    ("GET", {"ifModifiedSince": 5}),
    ("DELETE", {"ifMatch": {}}),
]


@pytest.mark.parametrize(("method", "request_"), _ODD)
async def test_conditions_of_another_kind(module_api: Api, method: str, request_: dict[str, Any]) -> None:
    await module_api.put_ok({**patient_resource(), "id": "ci1"})
    url = "Patient" if method == "POST" else "Patient/ci1"
    resource = {**patient_resource(), "id": "ci1"} if method in ("PUT", "POST") else None
    item = entry(method, url, resource, **request_)
    response = await module_api.transaction(item)
    assert response.status_code in (400, 422), response.text
    response = await module_api.transaction(item, kind="batch")
    assert response.status_code in (200, 400, 422), response.text
    if response.status_code == 200:
        assert response.json()["entry"][0]["response"]["status"][:3] in ("400", "422")


async def test_a_fault_of_one_batch_entry_leaves_the_others(module_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from fhir_server.interactions import batch

    await module_api.put_ok({**patient_resource(), "id": "ci2"})
    real = batch.retrieve

    async def broken(call: Any, connection: Any, item: Any) -> bytes:
        if "boom" in item.url:
            raise RuntimeError("SYNTHETIC Erika Beispiel")
        return await real(call, connection, item)

    monkeypatch.setattr(batch, "retrieve", broken)
    response = await module_api.transaction(
        entry("POST", "Patient", patient_resource()),
        entry("GET", "Patient/boom"),
        entry("GET", "Patient/ci2"),
        kind="batch",
    )
    assert response.status_code == 200, response.text
    first, second, third = (item["response"] for item in response.json()["entry"])
    assert (first["status"][:3], second["status"][:3], third["status"][:3]) == ("201", "500", "200")
    assert second["outcome"]["issue"][0]["code"] == "exception"
    assert "Beispiel" not in response.text
    assert "RuntimeError" not in response.text


def _large(count: int) -> dict[str, Any]:
    return {**patient_resource(), "name": [{"family": f"SYNTHETIC {n}", "given": ["Anna"]} for n in range(count)]}


async def test_a_resource_larger_than_the_limit(module_api: Api) -> None:
    refused(await module_api.post("/fhir/Patient", _large(400_000)), 413, "too-long")
    outcome = await module_api.transaction(entry("POST", "Patient", _large(400_000)))
    refused(outcome, 413, "too-long")
    data = base64.b64encode(bytes(15_000_000)).decode()
    binary = {"resourceType": "Binary", "contentType": "application/octet-stream", "data": data}
    assert (await module_api.post("/fhir/Binary", binary)).status_code == 201


async def test_large_bodies_are_read_beside_the_others(module_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from fhir_server.interactions import body, unit_of_work

    loop = threading.get_ident()
    seen: dict[str, bool] = {}
    real, saved = body.validate, unit_of_work.save

    def validate(*given: Any, **named: Any) -> None:
        seen["validate"] = threading.get_ident() == loop
        real(*given, **named)

    def save(*given: Any, **named: Any) -> Any:
        seen["save"] = threading.get_ident() == loop
        return saved(*given, **named)

    monkeypatch.setattr(body, "validate", validate)
    monkeypatch.setattr(unit_of_work, "save", save)
    assert (await module_api.post("/fhir/Patient", _large(10))).status_code == 201
    assert seen == {"validate": True, "save": True}
    assert (await module_api.post("/fhir/Patient", _large(10_000))).status_code == 201
    assert seen == {"validate": False, "save": False}
