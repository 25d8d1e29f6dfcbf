"""An export shows what was current when it began, every byte as it is stored, and loses no write.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

import asyncio

import httpx
import orjson
import psycopg

from tests.contract.fhir.api import Api, entry, observation
from tests.contract.fhir.bulk_exports import (
    ASYNC,
    exported,
    finished,
    lines,
    patients,
    references,
)


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
    content = b""
    for item in manifest["output"]:  # The two may lie in one piece of the export or in two.
        part = (await bulk_api.get(item["url"])).content
        assert part.endswith(b"\n")
        assert part.count(b"\n") == len(part.splitlines()) == item["count"]
        content += part
    found = content.splitlines()
    assert len(found) == 2
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
