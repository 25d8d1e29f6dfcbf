"""The required bindings of the tables against the official definitions (hl7.fhir.r4.core 4.0.1)."""
# ruff: noqa: T201 - counts are printed on purpose

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest

from fhir_server.model.elements import _concepts, _tables
from fhir_server.validation.forms import FORMS
from tests.conftest import TEST_DATA

# Bound to value sets that nobody has: LOINC's answer list, which HL7 may not ship.
NOT_ENUMERABLE = {"MolecularSequence.structureVariant.variantType"}


def official() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], list[dict[str, Any]]]:
    value_sets, systems, structures = {}, {}, []
    with tarfile.open(TEST_DATA.parent / "fhir" / "core-r4.tgz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name.startswith(("ValueSet-", "CodeSystem-", "StructureDefinition-")):
                stream = archive.extractfile(member)
                data = json.loads(stream.read()) if stream else {}
                if name.startswith("ValueSet-"):
                    value_sets[data["url"]] = data
                elif name.startswith("CodeSystem-"):
                    systems[data["url"]] = data
                elif data.get("derivation") != "constraint" and data["kind"] != "logical":
                    structures.append(data)
    return value_sets, systems, structures


def codes(url: str, value_sets: dict[str, Any], systems: dict[str, Any]) -> set[tuple[str, str]] | None:
    found: set[tuple[str, str]] = set()
    for include in value_sets.get(url, {}).get("compose", {}).get("include", []):
        for inner in include.get("valueSet", []):
            found |= codes(inner.split("|")[0], value_sets, systems) or set()
        if "concept" in include:
            found |= {(include["system"], c["code"]) for c in include["concept"]}
        elif "system" in include and not include.get("filter"):
            concepts = list(systems.get(include["system"], {}).get("concept", []))
            while concepts:
                concept = concepts.pop()
                found.add((include["system"], concept["code"]))
                concepts += concept.get("concept", [])
    return found or None


@pytest.mark.fhir_definitions
def test_every_required_binding_of_r4_is_in_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    types, lists = _tables()
    value_sets, systems, structures = official()
    counts = {"codes": 0, "concepts": 0, "forms": 0}
    for structure in structures:
        for element in structure["snapshot"]["element"]:
            binding = element.get("binding", {})
            kinds = {kind["code"] for kind in element.get("type", [])}
            owner, _, name = element["path"].rpartition(".")
            if binding.get("strength") != "required" or not kinds & {"code", "CodeableConcept"} or not owner:
                continue
            if element["path"] in NOT_ENUMERABLE or name.endswith("[x]") or structure.get("abstract"):
                continue
            rule = types.get(owner, {}).get(name)
            assert rule is not None, element["path"]
            wanted = codes(binding["valueSet"].split("|")[0], value_sets, systems)
            if rule[0] == "c":
                assert wanted is not None, element["path"]
                assert {code for _, code in wanted} == set(lists[rule[1]]), element["path"]
                counts["codes"] += 1
            elif rule[0] == "k":
                ours = {(system, code) for system, found in _concepts()[rule[1]].items() for code in found}
                assert ours == wanted, element["path"]
                counts["concepts"] += 1
            else:
                assert rule[0] in ("f", "g"), element["path"]
                counts["forms"] += 1
    with capsys.disabled():
        print(f"\nrequired bindings: {counts}, not enumerable: {sorted(NOT_ENUMERABLE)}")
    assert counts["codes"] > 300
    assert counts["concepts"] >= 9


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (
            "mime",
            ["text/plain", "application/fhir+json; fhirVersion=4.0", "json", 'text/x; a="b c"'],
            ["a picture", ""],
        ),
        ("language", ["de", "zh-Hans-CN", "en-US"], ["e_n", "1", "toolonglanguage"]),
        ("currency", ["EUR", "CNY"], ["EURO", "eur", "QQQ"]),
        ("ucum", ["mm", "mm[Hg]", "kg/m2"], ["furlongs per fortnight", ""]),
    ],
)
def test_forms(form: str, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not FORMS[form](text)] == []
    assert [text for text in bad if FORMS[form](text)] == []
