"""What is sealed in the store comes back byte for byte on every way out, and is found as before. SYNTHETIC numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import psycopg
import pytest
import pytest_asyncio

from fhir_server.store.sealed_content import MARKER
from tests.contract.fhir.api import Api, entry, refused, running
from tests.contract.fhir.test_sealed_identifiers import ADMIN, ID_CARD, MRN, NUMBER, PASSPORT, person

SENT = (
    '{ "resourceType":"Patient",\n "id":"spelled", "identifier" : [ {"value":"1101\\u0030519491231002X" ,\r\n'
    ' "system":"urn:oid:2.16.156.10011.1.3"}, {"system":"http:\\/\\/hl7.org\\/fhir\\/sid\\/passport-CHN",'
    ' "value":"\\"SYN\\"-护照"} ], "name":[{"text":"' + MARKER.decode() + MARKER.decode()[:-1] + '"}] }'
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api(module_database_url: str) -> AsyncIterator[Api]:
    async with running(module_database_url) as (_, client):
        yield Api(client, ADMIN)


def stored(url: str, logical_id: str) -> list[bytes]:
    with psycopg.connect(url) as connection:
        return [
            record[0]
            for table in ("resource", "history")
            for record in connection.execute(f"SELECT content FROM fhir.{table} WHERE id = %s", (logical_id,))  # noqa: S608
            if record[0] is not None
        ]


def numbers(resource: dict[str, Any]) -> set[str]:
    return {item["value"] for item in resource.get("identifier", ()) if item.get("system") == ID_CARD}


async def test_content_comes_back_as_it_was_sent(api: Api, module_database_url: str) -> None:
    first = await api.put("/fhir/Patient/spelled", SENT.encode())
    assert first.status_code == 201, first.text
    await api.put("/fhir/Patient/spelled", SENT.replace("SYN", "SYNTHETIC").encode())
    vread = (await api.get("/fhir/Patient/spelled/_history/1")).content
    # The same text with systems that nobody seals: what comes back of it is what has to come back.
    other = SENT.replace("10011.1.3", "99999.1.3").replace("passport", "nopassport").replace("spelled", "unsealed")
    assert (await api.put("/fhir/Patient/unsealed", other.encode())).status_code == 201
    unsealed = (await api.get("/fhir/Patient/unsealed/_history/1")).content
    unsealed = unsealed.replace(b"99999.1.3", b"10011.1.3").replace(b"nopassport", b"passport")
    assert vread[vread.index(b'"identifier"') :] == unsealed[unsealed.index(b'"identifier"') :]
    assert all(
        MARKER in content and b"002X" not in content and "护照".encode() not in content
        for content in stored(module_database_url, "spelled")
    )
    assert len(stored(module_database_url, "spelled")) == 2
    history = (await api.get("/fhir/Patient/spelled/_history")).json()
    assert [numbers(item["resource"]) for item in history["entry"]] == [{NUMBER}] * 2


@pytest.mark.parametrize(
    "query",
    [
        f"Patient?identifier={ID_CARD}|{NUMBER}",
        f"Patient?identifier={NUMBER}",
        f"Patient?identifier={MRN}|SYN-found",
        f"Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|NI|{NUMBER}",
        "Patient?identifier:text=ausw",
        f"Patient?identifier={ID_CARD}|",
        f"Patient?_filter=identifier eq {ID_CARD}|{NUMBER}",
        f"Patient?identifier={ID_CARD}|{NUMBER}&_elements=identifier",
        f"Patient?identifier={ID_CARD}|{NUMBER}&_sort=_id",
        "Patient?_id=found",
    ],
)
async def test_search_finds_and_shows_it(api: Api, query: str) -> None:
    await api.put_ok(person("found"))
    found = (await api.get(f"/fhir/{query}")).json()
    shown = {item["resource"]["id"]: item["resource"] for item in found["entry"] if item["search"]["mode"] == "match"}
    assert numbers(shown["found"]) == {NUMBER}


async def test_chains_references_and_negation(api: Api) -> None:
    await api.put_ok(person("chained", "SYN110101199003070011"))
    code = {"status": "final", "code": {"text": "SYNTHETIC"}}
    await api.put_ok({"resourceType": "Observation", "id": "o1", "subject": {"reference": "Patient/chained"}, **code})
    logical = {"identifier": {"system": ID_CARD, "value": "SYN110101199003070011"}}
    await api.put_ok({"resourceType": "Observation", "id": "o2", "subject": logical, **code})
    wanted = f"{ID_CARD}|SYN110101199003070011"
    assert await api.ids(f"Observation?subject:Patient.identifier={wanted}") == ["o1"]
    assert await api.ids(f"Observation?subject.identifier={wanted}") == ["o1"]
    assert await api.ids(f"Observation?subject:identifier={wanted}") == ["o2"]
    assert await api.ids(f"Patient?_has:Observation:patient:_id=o1&identifier={wanted}") == ["chained"]
    assert "chained" not in await api.ids(f"Patient?identifier:not={wanted}")
    assert "chained" not in await api.ids(f"Patient?identifier={PASSPORT}|SYN110101199003070011")
    assert await api.ids("Patient?identifier=|SYN110101199003070011") == []
    page = (await api.get("/fhir/Observation?_id=o1&_include=Observation:subject")).json()
    assert {n for item in page["entry"] for n in numbers(item["resource"])} == {"SYN110101199003070011"}
    everything = (await api.get("/fhir/Patient/chained/$everything")).json()
    assert {n for item in everything["entry"] for n in numbers(item["resource"])} == {"SYN110101199003070011"}


async def test_conditions_patches_and_versions(api: Api) -> None:
    number = "SYN11010119900307002X"
    await api.put_ok(person("patched", number))
    again = await api.post("/fhir/Patient", person("x", number), if_none_exist=f"identifier={ID_CARD}|{number}")
    assert again.status_code == 200, again.text
    active = {**person("patched", number), "active": True}
    updated = await api.put(f"/fhir/Patient?identifier={ID_CARD}|{number}", active)
    assert (updated.status_code, numbers(updated.json())) == (200, {number})
    patch = [
        {"op": "test", "path": "/identifier/1/value", "value": number},
        {"op": "replace", "path": "/identifier/1/value", "value": f"{number}-new"},
    ]
    done = await api.send("PATCH", "/fhir/Patient/patched", patch, content_type="application/json-patch+json")
    assert (done.status_code, numbers(done.json())) == (200, {f"{number}-new"}), done.text
    assert await api.ids(f"Patient?identifier={ID_CARD}|{number}") == []
    assert await api.ids(f"Patient?identifier={ID_CARD}|{number}-new") == ["patched"]
    together = await api.transaction(
        entry("PUT", "Patient/patched", {**person("patched", number), "active": False}),
        entry("GET", f"Patient?identifier={ID_CARD}|{number}"),
    )
    assert together.status_code == 200
    assert number in together.text
    await api.delete("/fhir/Patient/patched")
    assert await api.ids(f"Patient?identifier={number}") == []
    back = await api.put_ok(person("patched", number))
    assert numbers(back) == {number}
    assert await api.ids(f"Patient?identifier={number}") == ["patched"]


async def test_a_sealed_value_cannot_be_moved_and_tells_nothing(api: Api, module_database_url: str) -> None:
    await api.put_ok(person("theirs", "SYN-SECRET-7"))
    await api.put_ok(person("mine", "SYN-OTHER-8"))
    with psycopg.connect(module_database_url) as connection:
        ((theirs,),) = connection.execute("SELECT content FROM fhir.resource WHERE id = 'theirs'")
        moved = theirs.replace(b'"theirs"', b'"mine"').replace(b"SYN-theirs", b"SYN-mine")
        connection.execute("UPDATE fhir.resource SET content = %s WHERE id = 'mine'", (moved,))
    outcome = refused(await api.get("/fhir/Patient/mine"), 500, "exception")
    told = orjson.dumps(outcome)
    assert b"SECRET" not in told
    assert MARKER not in told
    await api.put_ok(person("theirs", "SYN-SECRET-7"))
    with psycopg.connect(module_database_url) as connection:
        connection.execute("DELETE FROM fhir.resource WHERE id = 'mine'")


async def test_what_a_client_sends_as_sealed_is_text(api: Api, module_database_url: str) -> None:
    await api.put_ok(person("model", "SYN-SECRET-9"))
    (content,) = stored(module_database_url, "model")
    token = orjson.loads(content)["identifier"][1]["value"]
    await api.put_ok({"resourceType": "Patient", "id": "model", "name": [{"text": token}]})
    shown = (await api.get("/fhir/Patient/model")).json()
    assert shown["name"][0]["text"] == token, "the server opened what a client had sent"


async def test_erasure_finds_the_number_in_what_others_wrote(api: Api) -> None:
    """The number lies sealed under another resource's name there; its tag is the same."""
    await api.put_ok(person("leaving", "SYN-110101199003078888"))
    theirs = {"identifier": {"system": ID_CARD, "value": "SYN-110101199003078888"}, "display": "SYNTHETIC"}
    await api.put_ok({"resourceType": "Basic", "id": "other", "code": {"text": "x"}, "subject": theirs})
    preview = (await api.get("/fhir/Patient/leaving/$erase-preview")).json()
    assert "Basic/other" in orjson.dumps(preview).decode()
