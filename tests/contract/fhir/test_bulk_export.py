"""Bulk Data Access 2.0 as a client meets it: kick-off, status, manifest, files; consistency, access, restarts.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest
import pytest_asyncio

from tests.contract.fhir.api import Api, entry, observation, patient_resource, refused, running

ASYNC = {"prefer": "respond-async"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bulk_api(module_database_url: str, home: Path) -> AsyncIterator[Api]:
    """A server whose files lie in a folder of this module and whose exports are cut into small pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORAMEN_HOME", str(home))
        patch.setenv("FORAMEN_FHIR_JOB_POLL_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
        patch.setenv("FORAMEN_FHIR_EXPORT_SEGMENT", "7")
        patch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "100")
        async with running(module_database_url) as (_, client):
            yield Api(client)


async def finished(api: Api, response: httpx.Response) -> httpx.Response:
    """Follow a kick-off to its end."""
    assert response.status_code == 202, response.text
    url = response.headers["content-location"]
    for _ in range(400):
        found = await api.get(url)
        if found.status_code != 202:
            return found
        assert int(found.headers["retry-after"]) >= 1
        assert found.headers["x-progress"]
        await asyncio.sleep(0.03)
    raise AssertionError("the export does not end")


async def exported(api: Api, path: str, **headers: str) -> dict[str, Any]:
    """Export and return the manifest."""
    found = await finished(api, await api.get(f"/fhir/{path}", **{**ASYNC, **headers}))
    assert found.status_code == 200, found.text
    assert found.headers["content-type"].startswith("application/json")
    assert "expires" in found.headers
    manifest: dict[str, Any] = found.json()
    return manifest


async def lines(api: Api, manifest: dict[str, Any], kind: str = "output") -> dict[str, list[dict[str, Any]]]:
    """Read every file of a manifest, by type."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in manifest[kind]:
        response = await api.get(item["url"], accept="application/fhir+ndjson")
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("application/fhir+ndjson")
        rows = [orjson.loads(line) for line in response.content.splitlines()]
        assert len(rows) == item["count"]
        found.setdefault(item["type"], []).extend(rows)
    return found


def references(rows: dict[str, list[dict[str, Any]]]) -> set[str]:
    return {f"{row['resourceType']}/{row['id']}" for found in rows.values() for row in found}


async def patients(api: Api, *names: str) -> None:
    for name in names:
        await api.put_ok({**patient_resource(), "id": name})


async def test_the_whole_flow(bulk_api: Api) -> None:
    await patients(bulk_api, "flow-1", "flow-2")
    for number in range(20):
        await bulk_api.create(observation(f"Patient/flow-{number % 2 + 1}", code=f"flow-{number}"))
    manifest = await exported(bulk_api, "$export?_type=Patient,Observation")
    assert manifest["request"] == "http://127.0.0.1:8000/fhir/$export?_type=Patient,Observation"
    assert manifest["requiresAccessToken"] is True
    assert manifest["deleted"] == []
    assert manifest["error"] == []
    age = datetime.now(UTC) - datetime.fromisoformat(manifest["transactionTime"])
    assert 0 <= age.total_seconds() < 30
    rows = await lines(bulk_api, manifest)
    assert set(rows) == {"Patient", "Observation"}
    for row in (*rows["Patient"], *rows["Observation"]):
        stored = await bulk_api.get(f"/fhir/{row['resourceType']}/{row['id']}")
        assert orjson.loads(stored.content) == row
    ids = [row["id"] for row in rows["Observation"]]
    assert len(ids) == len(set(ids)) >= 20


async def test_every_byte_comes_as_it_is_stored(bulk_api: Api) -> None:
    note = "quotes \" back\\slash \\. tab\t line\nfeed return\r \u2028 中文 😀 | , ; '"
    resource = {**observation("Patient/flow-1"), "id": "bytes-1", "note": [{"text": note}]}
    body = orjson.dumps(resource).replace(
        b'"note":', b'"valueQuantity":\r\n\t{"value":\r1.00,\r "unit":"mm"},\r"note":'
    )
    alone = body.replace(b"\n", b"").replace(b"bytes-1", b"bytes-2")  # Carriage returns without a line feed.
    for name, sent in (("bytes-1", body), ("bytes-2", alone)):
        assert (await bulk_api.put(f"/fhir/Observation/{name}", sent)).status_code == 201
    manifest = await exported(bulk_api, "$export?_type=Observation&_typeFilter=Observation%3F_id%3Dbytes-1%252Cbytes-2")
    (item,) = manifest["output"]
    content = (await bulk_api.get(item["url"])).content
    assert content.endswith(b"\n")
    found = content.splitlines()
    assert content.count(b"\n") == len(found) == item["count"] == 2
    assert b"\x01" not in content
    assert b"\r" not in content
    for line in found:
        assert b'"value":1.00' in line.replace(b" ", b"")
        row = orjson.loads(line)
        assert row["note"][0]["text"] == note


async def test_since_until_and_what_was_deleted(bulk_api: Api) -> None:
    await patients(bulk_api, "since-old", "since-changed", "since-gone", "since-back")
    first = await exported(bulk_api, "$export?_type=Patient")
    assert {"Patient/since-gone", "Patient/since-old"} <= references(await lines(bulk_api, first))
    await patients(bulk_api, "since-changed", "since-new")
    await bulk_api.delete("/fhir/Patient/since-gone")
    await bulk_api.delete("/fhir/Patient/since-back")
    await patients(bulk_api, "since-back")
    query = httpx.QueryParams({"_type": "Patient", "_since": first["transactionTime"]})
    second = await exported(bulk_api, f"$export?{query}")
    found = {r for r in references(await lines(bulk_api, second)) if "/since-" in r}
    assert found == {"Patient/since-changed", "Patient/since-new", "Patient/since-back"}
    (bundle,) = (await lines(bulk_api, second, "deleted"))["Bundle"]
    assert bundle["type"] == "transaction"
    assert [entry["request"] for entry in bundle["entry"]] == [{"method": "DELETE", "url": "Patient/since-gone"}]
    until = httpx.QueryParams({"_type": "Patient", "_until": first["transactionTime"]})
    third = references(await lines(bulk_api, await exported(bulk_api, f"$export?{until}")))
    assert "Patient/since-old" in third
    assert not third & {"Patient/since-changed", "Patient/since-new", "Patient/since-gone"}


async def test_the_export_shows_what_was_current_when_it_began(bulk_api: Api, module_database_url: str) -> None:
    for number in range(30):
        await bulk_api.put_ok({**observation("Patient/flow-1", code="then"), "id": f"then-{number}"})
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        # Hold the export at its barrier: a transaction that runs since before it began.
        other = psycopg.connect(module_database_url)
        other.execute("SELECT pg_current_xact_id()")
        query = "_type=Observation&_typeFilter=Observation%3Fcode%3Dthen,Observation%3Fcode%3Dnow"
        kicked = [await bulk_api.get(f"/fhir/$export?{q}", **ASYNC) for q in ("_type=Observation", query)]
        for response in kicked:
            job = response.headers["content-location"].rpartition("/")[2]
            for _ in range(200):
                row = connection.execute("SELECT state FROM fhir.job WHERE id = %s", [job]).fetchone()
                if row is not None and orjson.loads(bytes(row[0])):
                    break
                await asyncio.sleep(0.02)
            if response is kicked[0]:
                break  # One export runs at a time; the second begins when the first is done.
        await bulk_api.put_ok({**observation("Patient/flow-1", code="now"), "id": "then-3"})
        await bulk_api.put_ok({**observation("Patient/flow-1", code="later"), "id": "then-3"})
        await bulk_api.delete("/fhir/Observation/then-4")
        await bulk_api.put_ok({**observation("Patient/flow-1", code="then"), "id": "then-new"})
        response = await bulk_api.get(kicked[0].headers["content-location"])
        assert response.status_code == 202
        other.rollback()
        other.close()
    rows = (await lines(bulk_api, (await finished(bulk_api, kicked[0])).json()))["Observation"]
    then = {row["id"]: row["code"]["coding"][0]["code"] for row in rows if row["id"].startswith("then-")}
    assert then == {f"then-{number}": "then" for number in range(30)}
    rows = (await lines(bulk_api, (await finished(bulk_api, kicked[1])).json()))["Observation"]
    assert {row["id"] for row in rows} == {f"then-{n}" for n in range(30) if n not in (3, 4)} | {"then-new"}


async def test_a_write_that_commits_late_is_not_lost(bulk_api: Api, module_database_url: str) -> None:
    """Its time lies before transactionTime, its commit after the export has begun."""
    with psycopg.connect(module_database_url) as slow:
        slow.execute("SELECT pg_current_xact_id()")
        await asyncio.sleep(0.3)
        slow.execute(
            "INSERT INTO fhir.resource"
            " (row, key, type, id, version, updated, method, present, low, high, patients, content) VALUES"
            " (77, 77, 'Basic', 'late-1', 1, date_trunc('milliseconds', clock_timestamp()), 'PUT', 0, 0, 0, '{}',"
            ' convert_to(\'{"resourceType":"Basic","id":"late-1"}\', \'UTF8\'))'
        )
        response = await bulk_api.get("/fhir/$export?_type=Basic", **ASYNC)
        await asyncio.sleep(0.6)
        slow.commit()
    rows = await lines(bulk_api, (await finished(bulk_api, response)).json())
    assert references(rows) == {"Basic/late-1"}


async def test_a_bundle_that_takes_long_to_decide_is_not_lost(bulk_api: Api) -> None:
    """An export sees all or nothing of it, and nothing only when its time lies behind transactionTime."""
    many = [entry("POST", "Basic", {"resourceType": "Basic", "code": {"text": f"slow {n}"}}) for n in range(4000)]
    writing = asyncio.create_task(bulk_api.transaction(*many))
    seen = []
    while not writing.done():
        manifest = (await finished(bulk_api, await bulk_api.get("/fhir/$export?_type=Basic", **ASYNC))).json()
        rows = (await lines(bulk_api, manifest)).get("Basic", [])
        count = sum(row.get("code", {}).get("text", "").startswith("slow") for row in rows)
        seen.append((manifest["transactionTime"], count))
    written = [item["response"]["lastModified"] for item in (await writing).json()["entry"]]
    assert len(written) == 4000
    for transaction_time, count in seen:
        assert count == sum(updated <= transaction_time for updated in written)


async def test_patient_and_group_level(bulk_api: Api) -> None:
    await patients(bulk_api, "in-1", "in-2", "in-3", "out-1")
    for name in ("in-1", "in-2", "in-3", "out-1"):
        await bulk_api.put_ok({**observation(f"Patient/{name}"), "id": f"o-{name}"})
    await bulk_api.put_ok({"resourceType": "Practitioner", "id": "no-patient"})
    await bulk_api.put_ok(group("inner", "Patient/in-2"))
    members = group("cohort", "Patient/in-1", "Group/inner")
    members["member"] += [
        {"entity": {"reference": "Patient/out-1"}, "inactive": True},
        {"entity": {"reference": "Patient/in-3"}, "period": {"end": "2020-01-01"}},
    ]
    await bulk_api.put_ok(members)
    found = references(await lines(bulk_api, await exported(bulk_api, "Group/cohort/$export")))
    mine = {"Patient/in-1", "Patient/in-2", "Observation/o-in-1", "Observation/o-in-2"}
    assert {r for r in found if not r.startswith(("Group/", "AuditEvent/"))} == mine
    everybody = references(await lines(bulk_api, await exported(bulk_api, "Patient/$export")))
    assert mine | {"Patient/out-1", "Observation/o-out-1"} <= everybody
    assert "Practitioner/no-patient" not in everybody
    chosen = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "patient", "valueReference": {"reference": "Patient/in-2"}},
            {"name": "_type", "valueString": "Patient,Observation"},
        ],
    }
    response = await finished(bulk_api, await bulk_api.post("/fhir/Group/cohort/$export", chosen, **ASYNC))
    assert references(await lines(bulk_api, response.json())) == {"Patient/in-2", "Observation/o-in-2"}
    chosen["parameter"][0]["valueReference"] = {"reference": "Patient/out-1"}
    refused(await bulk_api.post("/fhir/Group/cohort/$export", chosen, **ASYNC), 400, "not-found")
    refused(await bulk_api.post("/fhir/$export", chosen, **ASYNC), 400, "value")
    refused(await bulk_api.get("/fhir/Group/nobody/$export", **ASYNC), 404, "not-found")
    await bulk_api.put_ok(group("empty"))
    assert (await exported(bulk_api, "Group/empty/$export?_type=Patient"))["output"] == []


def group(name: str, *members: str) -> dict[str, Any]:
    listed = [{"entity": {"reference": member}} for member in members]
    built = {"resourceType": "Group", "id": name, "type": "person", "actual": True}
    return {**built, "member": listed} if listed else built


async def test_filters_elements_and_provenance(bulk_api: Api) -> None:
    await patients(bulk_api, "filter-1")
    for number in range(12):
        status = "final" if number % 3 else "preliminary"
        await bulk_api.put_ok(
            {**observation("Patient/filter-1", code=f"filter-{number % 2}"), "id": f"filter-{number}", "status": status}
        )
    filters = "_typeFilter=Observation%3Fcode%3Dfilter-0%26status%3Dfinal&_typeFilter=Observation%3F_id%3Dfilter-1"
    rows = await lines(
        bulk_api, await exported(bulk_api, f"$export?_type=Observation&{filters}&_elements=Observation.code,id")
    )
    assert references(rows) == {f"Observation/filter-{n}" for n in (1, 2, 4, 8, 10)}
    for row in rows["Observation"]:
        assert set(row) == {"resourceType", "id", "meta", "status", "code"}
        assert row["meta"]["tag"][-1]["code"] == "SUBSETTED"
    for name in ("filter-2", "then-5"):
        provenance = {
            "resourceType": "Provenance",
            "id": f"about-{name}",
            "target": [{"reference": f"Observation/{name}"}],
            "recorded": "2026-01-01T00:00:00Z",
            "agent": [{"who": {"display": "SYNTHETIC"}}],
        }
        await bulk_api.put_ok(provenance)
    rows = await lines(
        bulk_api,
        await exported(
            bulk_api, f"$export?_type=Observation&{filters}&includeAssociatedData=LatestProvenanceResources"
        ),
    )
    assert [row["id"] for row in rows["Provenance"]] == ["about-filter-2"]
    assert len(rows["Observation"]) == 5


async def test_filters_that_need_to_be_looked_up(bulk_api: Api) -> None:
    identifier = {"system": "https://foramen.example/fhir/identifier/patient/TEST", "value": "CHAIN-1"}
    await bulk_api.put_ok({**patient_resource(), "id": "chain-1", "identifier": [identifier]})
    await bulk_api.put_ok({**observation("Patient/chain-1"), "id": "chain-o"})
    for query in ("patient.identifier=CHAIN-1", "_list=chain"):
        if query == "_list=chain":
            items = [{"item": {"reference": "Observation/chain-o"}}]
            await bulk_api.put_ok(
                {"resourceType": "List", "id": "chain", "status": "current", "mode": "working", "entry": items}
            )
        filters = httpx.QueryParams({"_type": "Observation", "_typeFilter": f"Observation?{query}"})
        assert references(await lines(bulk_api, await exported(bulk_api, f"$export?{filters}"))) == {
            "Observation/chain-o"
        }
    filters = httpx.QueryParams(
        {"_type": "Observation", "_typeFilter": "Observation?code:in=http://nowhere.example/vs"}
    )
    refused(await bulk_api.get(f"/fhir/$export?{filters}", **ASYNC), 404, "not-found")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("_outputFormat=text/csv", "not-supported"),
        ("_type=Nonsense", "value"),
        ("_typeFilter=Observation", "value"),
        ("_typeFilter=Observation%3Fnonsense%3D1", "not-supported"),
        ("_typeFilter=Observation%3F_include%3DObservation:subject", "not-supported"),
        ("_typeFilter=Observation%3Fcode%3Da&_type=Patient", "value"),
        ("_since=yesterday", "value"),
        ("organizeOutputBy=Patient", "not-supported"),
        ("includeAssociatedData=Everything", "not-supported"),
        ("_elements=a;b", "value"),
        ("patient=Patient/1", "value"),
        ("unknown=1", "not-supported"),
        ("_pseudonymise=../etc", "value"),
    ],
)
async def test_what_cannot_be_done_is_refused_at_once(bulk_api: Api, query: str, code: str) -> None:
    refused(await bulk_api.get(f"/fhir/$export?{query}", **ASYNC), 400, code)


async def test_lenient_leaves_out_what_it_cannot_do(bulk_api: Api) -> None:
    query = "_type=Basic,Nonsense&unknown=1&organizeOutputBy=Patient"
    manifest = await exported(bulk_api, f"$export?{query}", prefer="respond-async, handling=lenient")
    assert {item["type"] for item in manifest["output"]} <= {"Basic"}


async def test_a_kick_off_needs_its_header(bulk_api: Api) -> None:
    refused(await bulk_api.get("/fhir/$export"), 400, "required")
    refused(await bulk_api.get("/fhir/Patient/$export?_type=Practitioner", **ASYNC), 400, "not-supported")


async def test_access(bulk_api: Api) -> None:
    await patients(bulk_api, "mine-1", "theirs-1")
    for name in ("mine-1", "theirs-1"):
        await bulk_api.put_ok({**observation(f"Patient/{name}"), "id": f"o-{name}"})
    narrow = bulk_api.as_("system/Patient.rs")
    assert {item["type"] for item in (await exported(narrow, "$export"))["output"]} == {"Patient"}
    refused(await narrow.get("/fhir/$export?_type=Observation", **ASYNC), 403, "forbidden")
    refused(await bulk_api.as_("system/Patient.c").get("/fhir/$export", **ASYNC), 403, "forbidden")
    own = bulk_api.as_("patient/*.rs", patient="mine-1")
    found = references(await lines(own, await exported(own, "$export?_type=Patient,Observation")))
    assert found == {"Patient/mine-1", "Observation/o-mine-1"}
    filtered = await exported(own, "$export?_type=Observation&_typeFilter=Observation%3Fcode%3DF01")
    assert references(await lines(own, filtered)) == {"Observation/o-mine-1"}
    assert (await bulk_api.http.get("/fhir/$export")).status_code == 401


async def test_status_and_files_are_for_tokens_that_reach_what_was_exported(bulk_api: Api) -> None:
    response = await bulk_api.get("/fhir/$export?_type=Patient,Observation", **ASYNC)
    manifest = (await finished(bulk_api, response)).json()
    urls = [item["url"] for item in manifest["output"]] + [response.headers["content-location"]]
    assert len(urls) >= 3
    for narrow in (
        bulk_api.as_("patient/Observation.rs", patient="mine-1"),
        bulk_api.as_("patient/*.cruds", patient="mine-1"),
        bulk_api.as_("system/Observation.rs"),
        bulk_api.as_("openid"),
    ):
        for url in urls:
            refused(await narrow.get(url), 403, "forbidden")


async def test_status_and_files_are_their_owners_alone(bulk_api: Api) -> None:
    response = await bulk_api.get("/fhir/$export?_type=Patient", **ASYNC)
    manifest = (await finished(bulk_api, response)).json()
    url, status = manifest["output"][0]["url"], response.headers["content-location"]
    other = bulk_api.as_("system/*.rs", sub="somebody", client_id="another")
    for path in (url, status):
        assert (await bulk_api.http.get(path)).status_code == 401
        refused(await other.get(path), 404, "not-found")
    refused(await other.delete(status), 404, "not-found")
    refused(await bulk_api.as_("system/Observation.rs").get(url), 403, "forbidden")
    administrator = bulk_api.as_("foramen/admin", sub="root", client_id="cli")
    assert (await administrator.get(url)).status_code == 200
    name = url.rpartition("/")[2]
    job, place, expires, signature, _ = name.split(".")
    for forged in (
        f"{job}.1.{expires}.{signature}.ndjson",
        f"{job}.{place}.{int(expires) + 60}.{signature}.ndjson",
        "x.ndjson",
        "..%2f..%2fsecrets",
    ):
        refused(await bulk_api.get(f"/fhir/$bulk-file/{forged}"), 404, "not-found")


async def test_ranges_and_compression(bulk_api: Api) -> None:
    manifest = await exported(bulk_api, "$export?_type=Patient")
    url = manifest["output"][0]["url"]
    whole = await bulk_api.get(url, accept_encoding="identity")
    size = int(whole.headers["content-length"])
    assert size == len(whole.content)
    etag = whole.headers["etag"]
    for asked, expected in (
        ("bytes=0-9", whole.content[:10]),
        (f"bytes={size - 5}-", whole.content[-5:]),
        ("bytes=-7", whole.content[-7:]),
        ("bytes=5-99999999", whole.content[5:]),
    ):
        part = await bulk_api.get(url, range=asked, if_range=etag)
        assert part.status_code == 206
        assert part.content == expected
        assert part.headers["content-range"].endswith(f"/{size}")
    assert (
        await bulk_api.get(url, range="bytes=0-9", if_range='"another"', accept_encoding="identity")
    ).status_code == 200
    beyond = await bulk_api.get(url, range=f"bytes={size}-")
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{size}"
    async with bulk_api.http.stream("GET", url, headers={**bulk_api.headers, "accept-encoding": "gzip"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        raw = b"".join([piece async for piece in packed.aiter_raw()])
    assert gzip.decompress(raw) == whole.content
    head = await bulk_api.http.head(url, headers={**bulk_api.headers, "accept-encoding": "identity"})
    assert int(head.headers["content-length"]) == size


async def test_cancel_removes_everything(bulk_api: Api, home: Path) -> None:
    response = await bulk_api.get("/fhir/$export?_type=Patient", **ASYNC)
    manifest = (await finished(bulk_api, response)).json()
    status = response.headers["content-location"]
    folder = home / "bulk" / status.rpartition("/")[2]
    assert list(folder.iterdir())
    assert (await bulk_api.delete(status)).status_code == 202
    refused(await bulk_api.get(status), 404, "not-found")
    refused(await bulk_api.get(manifest["output"][0]["url"]), 404, "not-found")
    for _ in range(100):
        if not folder.exists():
            break
        await asyncio.sleep(0.05)
    assert not folder.exists()
    refused(await bulk_api.delete(status), 404, "not-found")


async def test_files_are_split_at_their_size(
    bulk_api: Api, monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_FILE_BYTES", "2000")
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "0.1")
    async with running(database_url) as (_, client):
        api = Api(client)
        for number in range(30):
            await api.put_ok({**patient_resource(), "id": f"p-{number}"})
        manifest = await exported(api, "$export?_type=Patient")
        assert len(manifest["output"]) >= 4
        rows = (await lines(api, manifest))["Patient"]
        assert sorted(row["id"] for row in rows) == sorted(f"p-{number}" for number in range(30))
        for item in manifest["output"]:
            size = int((await api.get(item["url"], accept_encoding="identity")).headers["content-length"])
            assert 0 < size < 4000


async def test_asking_too_often_is_slowed_down(
    bulk_api: Api, monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORAMEN_HOME", str(tmp_path))
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_SETTLE_S", "3")
    monkeypatch.setenv("FORAMEN_FHIR_EXPORT_POLLS_PER_S", "3")
    async with running(database_url) as (_, client):
        api = Api(client)
        url = (await api.get("/fhir/$export", **ASYNC)).headers["content-location"]
        answers = [await api.get(url) for _ in range(8)]
        assert [a.status_code for a in answers[:3]] == [202, 202, 202]
        slowed = next(a for a in answers if a.status_code == 429)
        refused(slowed, 429, "throttled")
        assert slowed.headers["retry-after"] == "1"
        assert (await api.delete(url)).status_code == 202


async def test_what_a_consent_hides_is_not_exported(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    for name, value in (("HOME", str(tmp_path)), ("FHIR_CONSENT", "true"), ("FHIR_EXPORT_SETTLE_S", "0.1")):
        monkeypatch.setenv(f"FORAMEN_{name}", value)
    terminology = "http://terminology.hl7.org/CodeSystem"
    recipient = {"coding": [{"system": f"{terminology}/v3-ParticipationType", "code": "IRCP"}]}
    consent = {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"system": f"{terminology}/consentscope", "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": "Patient/closed"},
        "policyRule": {"text": "SYNTHETIC"},
        "provision": {"type": "deny", "actor": [{"role": recipient, "reference": {"reference": "Practitioner/dr"}}]},
    }
    async with running(database_url) as (_, client):
        api = Api(client)
        await patients(api, "open", "closed")
        for name in ("open", "closed"):
            await api.put_ok({**observation(f"Patient/{name}"), "id": f"o-{name}"})
        await api.create(consent)
        named, other = (api.as_("user/*.rs", sub=name, fhirUser=f"Practitioner/{name}") for name in ("dr", "else"))
        for path in ("$export?_type=Patient,Observation", "Patient/$export?_type=Patient,Observation"):
            assert references(await lines(named, await exported(named, path))) == {"Patient/open", "Observation/o-open"}
            assert len(references(await lines(other, await exported(other, path)))) == 4
        filtered = "$export?_type=Observation&_typeFilter=Observation%3Fcode%3DF01"
        assert references(await lines(named, await exported(named, filtered))) == {"Observation/o-open"}
