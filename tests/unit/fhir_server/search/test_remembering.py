"""What an element contributes to the index is the same whether it was remembered or looked at."""

from __future__ import annotations

import copy
from typing import Any

from fhir_server.search import remembering
from fhir_server.search.index import extractor
from fhir_server.search.values import IndexValues

OWN = "http://127.0.0.1/fhir"
CONCEPT = {"coding": [{"system": "urn:s", "code": "A", "display": "SYNTHETIC"}], "text": "Other words"}
RESOURCES: tuple[dict[str, Any], ...] = (
    {
        "resourceType": "Observation",
        "status": "final",
        "category": [CONCEPT, {"text": "imaging"}],
        "code": CONCEPT,
        "method": CONCEPT,
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2026-01-02",
        "valueQuantity": {"value": 1.5, "unit": "mm"},
    },
    {"resourceType": "Patient", "active": True, "gender": "female", "deceasedBoolean": False},
    {"resourceType": "Condition", "code": CONCEPT, "severity": CONCEPT, "subject": {"reference": "Patient/1"}},
    {"resourceType": "Encounter", "status": "finished", "class": {"code": "IMP"}, "type": [CONCEPT, CONCEPT]},
)


def parts(values: IndexValues) -> tuple[Any, ...]:
    return (
        *(values.postings, values.dates, values.strings, values.numbers, values.patients, values.codes),
        *(values.present, values.low, values.high),
    )


def looked_at(resource: dict[str, Any]) -> IndexValues:
    remembering._SEEN.clear()
    return extractor(resource["resourceType"], OWN).extract(resource, "1")


def test_remembered_and_looked_at_are_the_same() -> None:
    for resource in RESOURCES:
        first = parts(looked_at(resource))
        assert remembering._SEEN, resource["resourceType"]
        assert parts(extractor(resource["resourceType"], OWN).extract(copy.deepcopy(resource), "1")) == first
        assert first[0], "nothing was found"


def test_equal_values_of_different_elements_keep_apart() -> None:
    one = {"resourceType": "Observation", "code": CONCEPT}
    other = {"resourceType": "Observation", "method": CONCEPT}
    alone = parts(looked_at(other))
    looked_at(one)
    assert parts(extractor("Observation", OWN).extract(other, "1")) == alone
    assert alone[0] != parts(looked_at(one))[0]


def test_what_is_remembered_does_not_grow_with_a_resource_or_without_end() -> None:
    resource = {"resourceType": "Observation", "status": "final", "code": {"text": "a"}}
    expected = parts(looked_at(resource))
    values = extractor("Observation", OWN).extract(resource, "1")
    values.postings.add(7)
    values.strings.add((7, "b"))
    assert parts(extractor("Observation", OWN).extract(resource, "1")) == expected
    for number in range(remembering._MOST + 10):
        extractor("Observation", OWN).extract({**resource, "code": {"text": f"{number}"}}, "1")
    assert len(remembering._SEEN) <= remembering._MOST
    remembering._SEEN.clear()
    extractor("Observation", OWN).extract({**resource, "status": "", "code": {"text": "x" * 500}}, "1")
    assert not any(len(text) > remembering._LONGEST for _, text in remembering._SEEN)
