"""The official R4 examples: accepted by the server, and equal when they come back."""
# ruff: noqa: T201 - counts are printed on purpose

from __future__ import annotations

import collections
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.model.resource import parse_resource
from fhir_server.model.validation import issues_of
from tests.conftest import TEST_DATA
from tests.contract.fhir.api import Api, refused

pytestmark = pytest.mark.fhir_definitions

_TARGET = "its reference points to a type that the element's definition does not list"
_BASE = "SearchParameter.base is missing (1..*)"
_DIV = "its narrative is empty (constraint txt-2)"
_EXTENSIONS = "SearchParameter-{0}-extensions-{1}-{2}"
FAULTY = {
    "DeviceMetric-example": f"{_TARGET}: parent is DeviceDefinition, R4 has Device",
    "DeviceUseStatement-example": f"{_TARGET}: reasonReference is Procedure",
    "MedicationRequest-medrx0301": f"{_TARGET}: dispenseRequest.performer is Practitioner, R4 has Organization",
    "Observation-clinical-gender": f"{_TARGET}: performer is Encounter",
    "ImplementationGuide-fhir": "ImplementationGuide.name and .status are missing (1..1)",
    "ig-r4": "the same resource as ImplementationGuide-fhir",
    "Questionnaire-qs1": "Questionnaire.item.linkId is missing (1..1) in 32 items",
    "ActivityDefinition-blood-tubes-supply": _DIV,
    "ActivityDefinition-heart-valve-replacement": _DIV,
    "EventDefinition-example": _DIV,
    "Questionnaire-zika-virus-exposure-assessment": _DIV,
    **{
        f"StructureDefinition-{name}": "it is not abstract and has no baseDefinition (constraint sdf-4)"
        for name in ("Definition", "Event", "FiveWs", "Request")
    },
    **{
        _EXTENSIONS.format(kind.lower(), kind, name): _BASE
        for kind in ("CodeSystem", "ValueSet")
        for name in ("author", "effective", "end", "keyword", "workflow")
    },
}
"""Examples that break R4's own definitions, each with what it breaks; every other one must be accepted."""
TOTAL = 5298
_BATCH = 200
_BATCH_BYTES = 3_000_000


def examples() -> list[tuple[str, bytes]]:
    """(file name without suffix, JSON text) of every resource in the package, `ig-r4.json` included."""
    found = []
    with tarfile.open(Path(TEST_DATA).parent / "fhir" / "examples-r4.tgz") as archive:
        for member in archive:
            if member.name.endswith(".json") and Path(member.name).name != "package.json":
                stream = archive.extractfile(member)
                body = stream.read() if stream else b""
                if b'"resourceType"' in body:
                    found.append((Path(member.name).stem, body))
    return sorted(found)


def exact(text: bytes) -> Any:
    """Read JSON keeping the text of every number."""
    return json.loads(text, parse_float=lambda t: ("float", t), parse_int=lambda t: ("int", t))


def without_server_elements(resource: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in resource.items() if name not in ("id", "meta")}
    meta = {n: v for n, v in resource.get("meta", {}).items() if n not in ("versionId", "lastUpdated")}
    return {**kept, "meta": meta} if meta else kept


def batches(found: list[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for name, body in found:
        if batch and (len(batch) == _BATCH or size + len(body) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((name, body))
        size += len(body)
    yield batch


async def sent(api: Api, kind: str, entries: list[bytes]) -> list[dict[str, Any]]:
    body = b'{"resourceType":"Bundle","type":"%s","entry":[%s]}' % (kind.encode(), b",".join(entries))
    response = await api.post("/fhir/", body)
    assert response.status_code == 200, response.text[:2000]
    answers: list[dict[str, Any]] = exact(response.content)["entry"]
    assert len(answers) == len(entries)
    return answers


async def test_all_examples_are_accepted_and_come_back_equal(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Every example is created over HTTP, read again, and compared down to the text of its numbers."""
    equal: collections.Counter[str] = collections.Counter()
    for batch in batches([(name, body) for name, body in examples() if name not in FAULTY]):
        kinds = [orjson.loads(body)["resourceType"] for _, body in batch]
        creates = [
            b'{"request":{"method":"POST","url":"%s"},"resource":%s}' % (kind.encode(), body)
            for kind, (_, body) in zip(kinds, batch, strict=True)
        ]
        urls = [
            entry["response"]["location"].partition("/_history")[0] for entry in await sent(api, "transaction", creates)
        ]
        reads = [b'{"request":{"method":"GET","url":"%s"}}' % url.encode() for url in urls]
        for (name, body), kind, entry in zip(batch, kinds, await sent(api, "batch", reads), strict=True):
            assert without_server_elements(entry["resource"]) == without_server_elements(exact(body)), name
            equal[kind] += 1
    for name, body in examples():
        if name in FAULTY:
            response = await api.post(f"/fhir/{orjson.loads(body)['resourceType']}", body)
            assert response.status_code == 422, name
    with capsys.disabled():
        total = sum(equal.values())
        print(f"\nofficial examples: {total} of {TOTAL} created and equal when read, {len(equal)} types; refused:")
        for name in sorted(FAULTY):
            print(f"  {name}: {FAULTY[name]}")
    assert total + len(FAULTY) == TOTAL


def test_refused_examples_have_the_faults_that_are_told_of_them() -> None:
    codes = {
        name: {issue.issue_code for issue in issues_of(parse_resource(body, 64), ignore_id=True)}
        for name, body in examples()
        if name in FAULTY
    }
    assert set(codes) == set(FAULTY)
    for name, found in codes.items():
        reason = FAULTY[name]
        if "missing" in reason or "same resource" in reason:
            assert "required" in found, name
        else:
            assert found == {"invariant" if "constraint" in reason else "value"}, name


async def test_parameters_are_not_stored_and_the_refusal_says_so(api: Api) -> None:
    """R4: "There is no RESTful end-point associated with it" (parameters.html)."""
    outcome = refused(await api.post("/fhir/Parameters", {"resourceType": "Parameters"}), 404, "not-supported")
    assert "never stored" in outcome["issue"][0]["diagnostics"]
    created = await api.create({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "value"}]})
    assert (await api.get(f"/fhir/OperationOutcome/{created['id']}")).status_code == 200
