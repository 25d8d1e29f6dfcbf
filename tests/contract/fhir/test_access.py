"""A patient scope reaches one patient's record: on no path does anything of another's come out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.contract.fhir.api import Api, entry, observation, refused, running

SCOPE = "patient/*.cruds"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def record(module_database_url: str) -> AsyncIterator[tuple[Api, Api]]:
    """(an administrator, patient a) over two small records."""
    async with running(module_database_url) as (_, client):
        everyone = Api(client)
        for name in ("a", "b"):
            await everyone.put_ok(
                {
                    "resourceType": "Patient",
                    "id": name,
                    "name": [{"family": f"Name{name}"}],
                    "generalPractitioner": [{"reference": "Practitioner/d"}],
                }
            )
            await everyone.put_ok(
                {**observation(f"Patient/{name}"), "id": f"o-{name}", "encounter": {"reference": f"Encounter/e-{name}"}}
            )
            await everyone.put_ok(
                {
                    "resourceType": "Encounter",
                    "id": f"e-{name}",
                    "status": "finished",
                    "class": {"code": "AMB"},
                    "subject": {"reference": f"Patient/{name}"},
                }
            )
        await everyone.put_ok({"resourceType": "Practitioner", "id": "d", "name": [{"family": "Doctor"}]})
        # An Observation of a that points into b's record.
        await everyone.put_ok(
            {**observation("Patient/a"), "id": "o-cross", "hasMember": [{"reference": "Observation/o-b"}]}
        )
        # An Observation of b that points into a's record.
        await everyone.put_ok(
            {**observation("Patient/b"), "id": "o-back", "hasMember": [{"reference": "Observation/o-a"}]}
        )
        yield everyone, everyone.as_(SCOPE, patient="a")


async def test_read_vread_history_answer_as_if_absent(record: tuple[Api, Api]) -> None:
    _, a = record
    for kind, mine, other in (("Patient", "a", "b"), ("Observation", "o-a", "o-b")):
        assert (await a.get(f"/fhir/{kind}/{mine}")).status_code == 200
        assert (await a.get(f"/fhir/{kind}/{mine}/_history/1")).status_code == 200
        assert (await a.get(f"/fhir/{kind}/{mine}/_history")).status_code == 200
        for suffix in ("", "/_history/1", "/_history"):
            outside = await a.get(f"/fhir/{kind}/{other}{suffix}")
            missing = await a.get(f"/fhir/{kind}/no-such{suffix}")
            assert refused(outside, 404, "not-found") == refused(missing, 404, "not-found")
    refused(await a.get("/fhir/Practitioner/d"), 404, "not-found")


async def test_search_and_total(record: tuple[Api, Api]) -> None:
    everyone, a = record
    assert await a.ids("Patient") == ["a"]
    assert sorted(await a.ids("Observation")) == ["o-a", "o-cross"]
    assert sorted(await a.ids("Observation?_count=1")) == ["o-a", "o-cross"]
    assert (await a.get("/fhir/Observation?_summary=count")).json()["total"] == 2
    assert (await a.get("/fhir/Observation?_total=accurate&_count=1")).json()["total"] == 2
    assert len(await everyone.ids("Observation")) == 4
    for query in ("patient=b", "subject=Patient/b", "_id=o-b", "patient=a,b&_id=o-b", "code:not=zzz&_id=o-b"):
        assert await a.ids(f"Observation?{query}") == []
    assert await a.ids("Patient?name=nameb") == []


async def test_chains_do_not_tell_what_they_cannot_see(record: tuple[Api, Api]) -> None:
    everyone, a = record
    assert await everyone.ids("Observation?has-member.subject:Patient.name=nameb") == ["o-cross"]
    assert await a.ids("Observation?has-member.subject:Patient.name=nameb") == []
    assert await a.ids("Observation?has-member.code=F01") == []
    assert await everyone.ids("Observation?_has:Observation:has-member:patient=b") == ["o-a"]
    assert await a.ids("Observation?_has:Observation:has-member:patient=b") == []
    assert await a.ids("Patient?general-practitioner.name=doctor") == []
    narrow = a.as_("patient/Observation.rs", patient="a")
    refused(await narrow.get("/fhir/Observation?subject:Patient.name=namea"), 403, "forbidden")


async def test_includes_stay_inside(record: tuple[Api, Api]) -> None:
    everyone, a = record
    url = (
        "/fhir/Observation?_include=Observation:has-member&_include=Observation:subject&_include=Observation:encounter"
    )
    names = {f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in (await a.get(url)).json()["entry"]}
    assert names == {"Observation/o-a", "Observation/o-cross", "Patient/a", "Encounter/e-a"}
    back = "/fhir/Observation?_id=o-a&_revinclude=Observation:has-member"
    assert len((await everyone.get(back)).json()["entry"]) == 2
    assert len((await a.get(back)).json()["entry"]) == 1
    narrow = a.as_("patient/Observation.rs", patient="a")
    names = {e["resource"]["resourceType"] for e in (await narrow.get(url)).json()["entry"]}
    assert names == {"Observation"}


async def test_histories_of_types_and_system_stay_inside(record: tuple[Api, Api]) -> None:
    _, a = record
    for url in ("/fhir/Observation/_history", "/fhir/_history?_count=1000"):
        text = (await a.get(url)).text
        assert "o-a" in text
        assert "Patient/b" not in text
        assert "Nameb" not in text
    refused(await a.as_("openid").get("/fhir/_history"), 403, "forbidden")


async def test_a_deleted_resource_outside_is_absent_too(record: tuple[Api, Api]) -> None:
    everyone, a = record
    await everyone.put_ok({**observation("Patient/b"), "id": "o-gone"})
    await everyone.delete("/fhir/Observation/o-gone")
    refused(await everyone.get("/fhir/Observation/o-gone"), 410, "deleted")
    refused(await a.get("/fhir/Observation/o-gone"), 404, "not-found")


async def test_writes_stay_inside(record: tuple[Api, Api]) -> None:
    everyone, a = record
    refused(await a.post("/fhir/Observation", observation("Patient/b")), 403, "forbidden")
    refused(await a.post("/fhir/Patient", {"resourceType": "Patient"}), 403, "forbidden")
    moved = {**observation("Patient/a"), "id": "o-b"}
    outside = refused(await a.put("/fhir/Observation/o-b", moved), 404, "not-found")
    missing = refused(await a.put("/fhir/Observation/o-new", {**moved, "id": "o-new"}), 404, "not-found")
    assert outside == missing
    refused(await a.put("/fhir/Observation/o-a", {**observation("Patient/b"), "id": "o-a"}), 403, "forbidden")
    refused(await a.delete("/fhir/Observation/o-b"), 404, "not-found")
    assert (await everyone.get("/fhir/Observation/o-b")).json()["subject"]["reference"] == "Patient/b"
    assert (await a.post("/fhir/Observation", {**observation("Patient/a"), "status": "amended"})).status_code == 201


async def test_bundles_stay_inside(record: tuple[Api, Api]) -> None:
    _, a = record
    refused(await a.transaction(entry("GET", "Observation/o-b")), 404, "not-found")
    refused(await a.transaction(entry("POST", "Observation", observation("Patient/b"))), 403, "forbidden")
    answer = await a.transaction(
        entry("GET", "Observation/o-b"), entry("GET", "Observation?_id=o-b,o-back"), kind="batch"
    )
    entries = answer.json()["entry"]
    assert entries[0]["response"]["status"].startswith("404")
    assert entries[1]["resource"]["total"] == 0
    # A conditional create cannot be used to ask whether something of another's exists.
    found = await a.transaction(
        entry("POST", "Observation", observation("Patient/a", code="Z"), ifNoneExist="patient=Patient/b")
    )
    assert found.json()["entry"][0]["response"]["status"] == "201 Created"
    refused(
        await a.transaction(
            entry(
                "POST",
                "Observation",
                observation("Patient/a", hasMember=[{"reference": "Observation?patient=Patient/b&_id=o-b"}]),
            )
        ),
        412,
        "not-found",
    )


async def test_scopes_are_needed_for_every_entry(record: tuple[Api, Api]) -> None:
    everyone, _ = record
    limited = everyone.as_("system/Observation.c")
    answer = await limited.transaction(
        entry("POST", "Observation", observation("Patient/a", code="never")),
        entry("POST", "Patient", {"resourceType": "Patient"}),
    )
    refused(answer, 403, "forbidden")
    refused(
        await limited.post("/fhir/Observation", observation("Patient/a"), if_none_exist="code=F01"), 403, "forbidden"
    )
    assert await everyone.ids("Observation?code=never") == []


async def test_a_patient_sees_their_own_audit_events_only(record: tuple[Api, Api]) -> None:
    everyone, a = record
    await everyone.get("/fhir/Patient/b")
    bundle = (await a.get("/fhir/AuditEvent?_count=1000")).json()
    assert "Patient/b" not in str(bundle.get("entry"))
