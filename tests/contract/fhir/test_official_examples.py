"""The official R4 examples: accepted by the server, and equal when they come back."""
# ruff: noqa: T201, E501 - counts are printed on purpose

from __future__ import annotations

import collections
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.model.resource import parse_resource
from fhir_server.model.validation import issues_of
from fhir_server.search.parameters import resource_types
from tests.conftest import TEST_DATA
from tests.contract.fhir.api import Api

pytestmark = pytest.mark.fhir_definitions

# Clinical model §6.1 and what the spine itself writes.
MAIN_TYPES = (
    *("Patient", "Condition", "ImagingStudy", "Observation", "BodyStructure", "DiagnosticReport", "Questionnaire"),
    *(
        "QuestionnaireResponse",
        "ServiceRequest",
        "Task",
        "GuidanceResponse",
        "RiskAssessment",
        "CarePlan",
        "RequestGroup",
    ),
    *("DetectedIssue", "Procedure", "Encounter", "Device", "DeviceUseStatement", "Appointment", "Schedule", "CareTeam"),
    *(
        "PractitionerRole",
        "Media",
        "DocumentReference",
        "Provenance",
        "DeviceDefinition",
        "AuditEvent",
        "Consent",
        "Group",
    ),
    *(
        "ResearchStudy",
        "ResearchSubject",
        "List",
        "Library",
        "Practitioner",
        "Organization",
        "Endpoint",
        "Location",
        "Binary",
    ),
)
SAMPLE_OTHERS = 100

_EXTENSIONS = "SearchParameter-{0}-extensions-{1}-{2}"
FAULTY = {
    # A reference to a type that the element does not allow.
    "DeviceMetric-example",
    "DeviceUseStatement-example",
    "MedicationRequest-medrx0301",
    "Observation-clinical-gender",
    # Required elements are missing.
    "ImplementationGuide-fhir",
    "Questionnaire-qs1",
    *(
        _EXTENSIONS.format(kind.lower(), kind, name)
        for kind in ("CodeSystem", "ValueSet")
        for name in ("author", "effective", "end", "keyword", "workflow")
    ),
    # Codes with line breaks; an id longer than 64 characters.
    "CodeSystem-v2-0550",
    "SearchParameter-questionnaireresponse-extensions-QuestionnaireResponse-item-subject",
}
"""Examples that break R4 themselves; every other one must be accepted."""


def examples() -> list[tuple[str, bytes]]:
    found = []
    with tarfile.open(Path(TEST_DATA).parent / "fhir" / "examples-r4.tgz") as archive:
        for member in archive:
            if member.name.endswith(".json") and not Path(member.name).name.startswith((".", "package", "ig-r4")):
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


async def test_examples_are_accepted_and_come_back_equal(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    chosen: list[tuple[str, bytes]] = []
    others: list[tuple[str, bytes]] = []
    for name, body in examples():
        kind = orjson.loads(body)["resourceType"]
        if kind in resource_types():
            (chosen if kind in MAIN_TYPES else others).append((name, body))
    random.Random(1).shuffle(chosen)
    random.Random(2).shuffle(others)
    sample = chosen[:300] + others[:SAMPLE_OTHERS]
    refused: list[str] = []
    counts: collections.Counter[str] = collections.Counter()
    for name, body in sample:
        kind = orjson.loads(body)["resourceType"]
        created = await api.post(f"/fhir/{kind}", body)
        if created.status_code != 201:
            refused.append(f"{name}: {[(i['code'], i['expression']) for i in created.json()['issue'][:3]]}")
            continue
        read = await api.get(f"/fhir/{kind}/{orjson.loads(created.content)['id']}")
        assert without_server_elements(exact(read.content)) == without_server_elements(exact(body)), name
        counts[kind] += 1
    with capsys.disabled():
        print(
            f"\nofficial examples: {sum(counts.values())} of {len(sample)} sampled accepted and equal, {len(counts)} types"
        )
        for line in refused:
            print("  refused", line)
    assert {line.partition(":")[0] for line in refused} <= FAULTY


def test_validation_of_all_examples(capsys: pytest.CaptureFixture[str]) -> None:
    refused = []
    total = 0
    for name, body in examples():
        resource = parse_resource(body, 64)
        if resource.resource_type not in resource_types():
            continue
        total += 1
        issues = issues_of(resource)
        if issues:
            refused.append((name, [(i.issue_code, i.expression[0]) for i in issues[:2]]))
    with capsys.disabled():
        print(f"\nofficial examples: {total - len(refused)} of {total} valid")
    assert {name for name, _ in refused} == FAULTY
