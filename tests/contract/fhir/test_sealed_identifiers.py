"""National identifiers lie sealed in the record, and no plain copy of them anywhere (ADR 0032). Numbers: SYNTHETIC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from fhir_server.search.parameters import path_base
from fhir_server.search.values import identifier_hash, of_type_hash, token_hashes
from fhir_server.store.sealed_content import MARKER
from tests.contract.fhir.api import Api, running

ID_CARD = "urn:oid:2.16.156.10011.1.3"
PASSPORT = "http://hl7.org/fhir/sid/passport-CHN"
NUMBER = "11010519491231002X"  # SYNTHETIC: the example of GB 11643, nobody's.
MRN = "https://example.org/mrn"
ADMIN = "system/*.cruds foramen/admin"


def person(logical_id: str, number: str = NUMBER, system: str = ID_CARD, **more: Any) -> dict[str, Any]:
    kind = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "NI"}], "text": "Ausweis"}
    return {
        "resourceType": "Patient",
        "id": logical_id,
        "identifier": [
            {"system": MRN, "value": f"SYN-{logical_id}"},
            {"type": kind, "value": number, "system": system},
        ],
        "name": [{"family": "Synthetic"}],
        **more,
    }


def everything_stored(url: str) -> list[tuple[str, bytes]]:
    """Every row of every table of the schema, as text and as the bytes of its columns."""
    rows: list[tuple[str, bytes]] = []
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'fhir'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT t.* FROM fhir."{table}" t'):  # noqa: S608
                rows.append((table, b"\x00".join(v if isinstance(v, bytes) else str(v).encode() for v in row)))
    return rows


def plain_hashes(number: str = NUMBER, system: str = ID_CARD) -> set[int]:
    """Entries that somebody without a key could make."""
    base = path_base("Patient", "token", "identifier")
    kind = of_type_hash("http://terminology.hl7.org/CodeSystem/v2-0203", "NI", number)
    alone, qualified = token_hashes(system, number, exact=True)[:2]
    subject = path_base("Observation", "reference", "subject")
    return {base ^ alone, base ^ qualified, base ^ kind, subject ^ identifier_hash(alone)} | {alone, qualified, kind}


def copies(url: str, number: str = NUMBER) -> list[str]:
    """Where the number stands: as it is, in hexadecimal, or as a hash without a key."""
    raw = number.encode()
    needles = [raw, raw.hex().encode(), raw.hex().upper().encode(), number.lower().encode()]
    found = [t for t, row in everything_stored(url) if any(n in row for n in needles)]
    with psycopg.connect(url) as connection:
        hashes = list(plain_hashes(number))
        found += ["posting"] * len(
            connection.execute("SELECT FROM fhir.posting WHERE hash = ANY(%s)", (hashes,)).fetchall()
        )
        found += [
            table
            for table in ("string_value", "number_value", "date_value")
            if connection.execute(f"SELECT FROM fhir.{table} WHERE path = ANY(%s)", (hashes,)).fetchall()
        ]
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def api(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setenv("FORAMEN_FHIR_FULL_TEXT", "true")
    async with running(database_url) as (_, client):
        yield Api(client, ADMIN)


async def use(api: Api) -> None:
    """Write and ask in every manner that leaves something behind."""
    custom = {
        "resourceType": "SearchParameter",
        "id": "number",
        "url": "https://example.org/number",
        "name": "Number",
        "status": "active",
        "description": "SYNTHETIC",
        "code": "number",
        "base": ["Patient"],
        "type": "string",
        "expression": "Patient.identifier.value | Patient.identifier.value.select(substring(0, 17))",
    }
    await api.put_ok(custom)
    await api.put_ok(person("p"))
    await api.put_ok(person("p", active=True))
    about = {"identifier": {"system": ID_CARD, "value": NUMBER}}
    base = {"resourceType": "Observation", "status": "final", "code": {"text": "SYNTHETIC"}}
    await api.put_ok({**base, "id": "o", "subject": about})
    within = {"contained": [{**person("c"), "id": "c"}], "subject": {"reference": "#c"}}
    await api.create({"resourceType": "Basic", "code": {"text": "x"}, **within})
    await api.create(
        {
            "resourceType": "AuditEvent",
            "type": {"code": "rest", "system": "http://terminology.hl7.org/CodeSystem/audit-event-type"},
            "recorded": "2026-01-01T00:00:00Z",
            "agent": [{"who": about, "requestor": True}],
            "source": {"observer": {"display": "SYNTHETIC"}},
        }
    )
    for query in (
        f"Patient?identifier={ID_CARD}|{NUMBER}",
        f"Patient?identifier={NUMBER}",
        f"Patient?_content={NUMBER}",
        f"Observation?subject:identifier={ID_CARD}|{NUMBER}",
        f"Patient?identifier={ID_CARD}|{NUMBER}&_explain=plan",
    ):
        await api.get(f"/fhir/{query}")
    refused = await api.put("/fhir/Patient/bad", {**person("bad"), "gender": NUMBER})
    assert refused.status_code in (400, 422)
    deferred = await api.get(f"/fhir/Patient?identifier={ID_CARD}|{NUMBER}", prefer="respond-async")
    assert deferred.status_code == 202, deferred.text
    asked = {"method": "PUT", "url": "Patient/q"}
    body = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": person("q"), "request": asked}]}
    later = await api.post("/fhir/", body, prefer="respond-async")
    assert later.status_code == 202, later.text
    wanted = f"Patient%3Fidentifier%3D{ID_CARD}%7C{NUMBER}"
    export = await api.get(f"/fhir/$export?_typeFilter={wanted}", prefer="respond-async")
    assert export.status_code == 202, export.text
    for _ in range(100):
        if (await api.get("/fhir/Patient/q")).status_code == 200:
            break
        await asyncio.sleep(0.1)
    await api.get("/fhir/AuditEvent?_count=1")  # Whatever waits in the log is indexed first.


async def test_no_plain_copy_remains_anywhere(api: Api, database_url: str) -> None:
    await use(api)
    rows = everything_stored(database_url)
    assert sum(table in ("resource", "history") and MARKER in row for table, row in rows) >= 5
    assert copies(database_url) == []


async def test_the_test_above_finds_copies_where_nothing_is_sealed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORAMEN_FHIR_NATIONAL_IDENTIFIERS", "")
    monkeypatch.setenv("FORAMEN_FHIR_FULL_TEXT", "true")
    async with running(database_url) as (_, client):
        await use(Api(client, ADMIN))
        assert {"resource", "history", "posting", "string_value"} <= set(copies(database_url))
