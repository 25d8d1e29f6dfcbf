"""What a Binary's securityContext names, and under what it is indexed. All data SYNTHETIC."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.access.security_context import UNKNOWN, marker, security_context
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.index import extractor
from fhir_server.search.parameters import patient_base, resource_types

OWN = "https://foramen.example/fhir"


def binary(context: Any) -> dict[str, Any]:
    return {"resourceType": "Binary", "contentType": "text/plain", "securityContext": context}


@pytest.mark.parametrize(
    ("reference", "resource_type", "text"),
    [
        ("Patient/p", "Patient", "Patient/p"),
        (f"{OWN}/Patient/p", "Patient", "Patient/p"),
        (f"{OWN}/Patient/p/_history/3", "Patient", "Patient/p"),
        ("DocumentReference/d/_history/1", "DocumentReference", "DocumentReference/d"),
        ("https://elsewhere.example/fhir/Patient/p", UNKNOWN, "/"),
        ("urn:uuid:00000000-0000-4000-8000-000000000000", UNKNOWN, "/"),
        ("#p", UNKNOWN, "/"),
        ("Patients/p", UNKNOWN, "/"),
        ("Patient/", UNKNOWN, "/"),
        ("", UNKNOWN, "/"),
    ],
)
def test_what_is_named_is_found_again(reference: str, resource_type: str, text: str) -> None:
    data = binary({"reference": reference})
    assert security_context(data, OWN, resource_types()) == (resource_type, text)
    values = extractor("Binary", OWN).extract(data, "b")
    assert values.patients == {text}
    assert patient_base("Binary") ^ marker(resource_type) in values.postings
    assert patient_base("Binary") ^ hash64(text) in values.postings


def test_without_a_context_there_is_nothing_and_with_an_empty_one_nobody_knows() -> None:
    assert security_context({"resourceType": "Binary"}, OWN, resource_types()) is None
    assert extractor("Binary", OWN).extract({"resourceType": "Binary"}, "b").patients == set()
    for context in ({"identifier": {"value": "x"}}, {"reference": 1}, "Patient/p", {}):
        assert security_context(binary(context), OWN, resource_types()) == (UNKNOWN, "/")


def test_no_resource_has_a_marker_as_its_key() -> None:
    markers = {marker(name) for name in (*resource_types(), UNKNOWN)}
    assert len(markers) == len(resource_types()) + 1
    assert resource_key("Patient", "p") not in markers
