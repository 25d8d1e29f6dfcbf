"""Generated snapshots against the official ones: every R4 profile on a resource, and IPA's."""
# ruff: noqa: T201 - counts are printed on purpose

from __future__ import annotations

import json
import tarfile
from functools import lru_cache
from typing import Any

import pytest

from fhir_server.profiles.shipped import r4_elements
from fhir_server.validation.snapshot import generate_snapshot
from foramen.kernel.errors import InvalidResourceError
from tests.conftest import TEST_DATA

pytestmark = pytest.mark.fhir_definitions
PARTS = ("min", "max", "fixedUri", "fixedCode", "patternCodeableConcept", "sliceName", "maxLength")
PACKAGES = ("core-r4.tgz", "ipa_v100.tgz")


DIFFERING = {"bmi", "bp"}
"""Both write a typed choice in the old short form (`valueQuantity`), which the official snapshots resolve otherwise."""


@lru_cache(maxsize=1)
def profiles() -> dict[str, dict[str, Any]]:
    found = {}
    for name in PACKAGES:
        with tarfile.open(TEST_DATA.parent / "fhir" / name) as archive:
            for member in archive:
                if "/StructureDefinition-" not in member.name or not member.name.endswith(".json"):
                    continue
                stream = archive.extractfile(member)
                structure = json.loads(stream.read()) if stream else {}
                if structure.get("derivation") == "constraint" and structure["kind"] == "resource":
                    found[structure["url"]] = structure
    return found


def elements_of(url: str) -> list[dict[str, Any]] | None:
    if url in profiles():
        return profiles()[url]["snapshot"]["element"]
    return r4_elements(url)


def comparable(element: dict[str, Any]) -> dict[str, Any]:
    return {name: element[name] for name in PARTS if name in element}


def test_generated_snapshots_agree_with_official_ones(capsys: pytest.CaptureFixture[str]) -> None:
    equal, elements, differing = 0, 0, []
    for structure in profiles().values():
        base = elements_of(structure["baseDefinition"])
        if base is None:
            continue
        made = generate_snapshot(structure["differential"]["element"], base, elements_of)
        ours = {element["id"]: comparable(element) for element in made}
        official = {element["id"]: comparable(element) for element in structure["snapshot"]["element"]}
        wrong = [identity for identity, element in official.items() if ours.get(identity) != element]
        elements += len(official)
        if wrong:
            differing.append((structure["id"], wrong[:4], len(wrong)))
        else:
            equal += 1
    with capsys.disabled():
        print(
            f"\nsnapshots: {equal} of {equal + len(differing)} profiles equal the official ones ({elements} elements)"
        )
        for line in differing:
            print("  differs", *line)
    assert equal >= 50
    assert {identity for identity, *_ in differing} <= DIFFERING


def test_an_element_the_base_lacks_is_refused() -> None:
    base = r4_elements("Patient")
    assert base is not None
    with pytest.raises(InvalidResourceError) as caught:
        generate_snapshot([{"id": "Patient.nonsense", "path": "Patient.nonsense"}], base, r4_elements)
    assert "Patient.nonsense" in caught.value.issues[0].expression[0]
