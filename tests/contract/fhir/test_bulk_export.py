"""Bulk Data Access 2.0 as a client meets it: kick-off, status, manifest, levels, filters.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import orjson
import pytest

from tests.contract.fhir.api import Api, observation, patient_resource, refused
from tests.contract.fhir.bulk_exports import (
    ASYNC,
    exported,
    finished,
    group,
    lines,
    patients,
    references,
)


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
