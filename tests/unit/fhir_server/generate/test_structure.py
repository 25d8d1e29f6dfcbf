"""The table of elements says what HL7's own definitions say, element by element."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fhir_server.model.structure import concrete_resources, primitive_types, structure_of
from tests.conftest import TEST_DATA


def official() -> list[dict[str, Any]]:
    found = []
    with tarfile.open(Path(TEST_DATA).parent / "fhir" / "core-r4.tgz") as archive:
        for member in archive:
            if "/StructureDefinition-" in member.name and member.name.endswith(".json"):
                stream = archive.extractfile(member)
                data = json.loads(stream.read()) if stream else {}
                if data.get("kind") != "logical" and data.get("derivation") != "constraint":
                    found.append(data)
    return found


def _names(element: dict[str, Any], leaf: str) -> list[str]:
    if not leaf.endswith("[x]"):
        return [leaf]
    stem = leaf.removesuffix("[x]")
    return [stem + kind["code"][0].upper() + kind["code"][1:] for kind in element["type"]]


@pytest.mark.fhir_definitions
def test_every_element_is_there_in_order_with_its_cardinality() -> None:
    expected: dict[str, list[tuple[str, bool]]] = {}
    for definition in official():
        if definition["kind"] == "primitive-type":
            assert definition["name"] in primitive_types()
            continue
        for element in definition["snapshot"]["element"][1:]:
            parent, _, leaf = element["path"].rpartition(".")
            names = [(name, element["max"] not in ("0", "1")) for name in _names(element, leaf)]
            expected.setdefault(parent, []).extend(names)
    for type_name, elements in expected.items():
        found = structure_of(type_name)
        assert found is not None, type_name
        assert [(rule.name, rule.repeats) for rule in found.elements.values()] == elements, type_name
    assert len(expected) > 600


@pytest.mark.fhir_definitions
def test_resources_are_those_of_r4() -> None:
    names = {d["type"] for d in official() if d["kind"] == "resource" and not d["abstract"]}
    assert concrete_resources() == names


def test_what_a_table_looks_like() -> None:
    extension = structure_of("Extension")
    assert extension is not None
    assert extension.elements["url"].is_attribute
    assert extension.elements["valueQuantity"].type_name == "Quantity"
    assert extension.choices["value"]["CodeableConcept"] == "valueCodeableConcept"
    patient = structure_of("Patient")
    assert patient is not None
    assert not patient.elements["id"].is_attribute
    assert patient.elements["contact"].type_name == "Patient.contact"
    assert structure_of("Nonsense") is None
