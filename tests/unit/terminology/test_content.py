"""What is shipped: all of R4's value sets, no licensed codes, our own codes with Chinese names; all from memory."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import orjson
import pytest

from foramen.kernel.errors import InteropError
from terminology import codes, systems
from terminology.generate.__main__ import WITHHELD, compact
from terminology.service import Terminology
from terminology.sources import Library

CONTENT = Path(__file__).parents[3] / "terminology" / "content"
LIBRARY = Library()


def _core(test_data: Path, kind: str) -> dict[str, dict[str, Any]]:
    found = {}
    with tarfile.open(test_data.parent / "fhir" / "core-r4.tgz") as archive:
        for member in archive:
            if member.name.rpartition("/")[2].startswith(f"{kind}-"):
                file = archive.extractfile(member)
                assert file is not None
                resource = json.loads(file.read())
                found[resource["url"]] = resource
    return found


def _count(concepts: list[dict[str, Any]]) -> int:
    return sum(1 + _count(concept.get("concept", [])) for concept in concepts)


@pytest.mark.fhir_definitions
def test_every_code_system_of_r4_is_there_with_all_its_codes(test_data: Path) -> None:
    core = _core(test_data, "CodeSystem")
    assert len(core) == 1062
    # Without content in R4 itself: SNOMED CT, the FHIR "summary" placeholder, and a supplement.
    empty = {url for url, item in core.items() if item["content"] in ("not-present", "supplement")}
    different = {}
    for url, item in core.items():
        system = LIBRARY.code_system(url)
        if system is None or system.size != _count(item.get("concept", [])):
            different[url] = item["content"]
    # The npm package has four codes of v2-0550 without the stray non-breaking spaces that R4 published.
    assert set(different) == {*empty, "http://terminology.hl7.org/CodeSystem/v2-0550"}
    assert len(empty) == 3


@pytest.mark.fhir_definitions
def test_every_value_set_of_r4_is_there(test_data: Path) -> None:
    core = _core(test_data, "ValueSet")
    assert len(core) == 1316
    assert not [url for url in core if LIBRARY.find("ValueSet", url) is None]
    different = [
        url
        for url, item in core.items()
        if (compact(item).get("compose") or {}) != (LIBRARY.find("ValueSet", url) or {}).get("compose", {})
    ]
    assert not different


@pytest.mark.fhir_definitions
def test_which_concept_maps_of_r4_are_there(test_data: Path) -> None:
    core = _core(test_data, "ConceptMap")
    missing = {url for url in core if LIBRARY.find("ConceptMap", url) is None}
    licensed = {
        url
        for url, item in core.items()
        if {group.get(end) for group in item.get("group", []) for end in ("source", "target")} & WITHHELD
    }
    # The npm package lacks the maps of status codes to the canonical ones; the others lead into SNOMED CT.
    assert {url for url in missing if "/sc-" not in url} == licensed
    assert len(missing) - len(licensed) == 61


def test_no_licensed_codes_are_shipped() -> None:
    text = gzip.decompress((CONTENT / "core.json.gz").read_bytes())
    for line in text.split(b"\n")[1:]:
        resource = orjson.loads(line)
        for part in ("include", "exclude"):
            for include in resource.get("compose", {}).get(part, []):
                assert not (include.get("system") in WITHHELD and "concept" in include)
        for group in resource.get("group", []):
            assert not {group.get("source"), group.get("target")} & WITHHELD
        if resource["resourceType"] == "CodeSystem" and resource["url"] in WITHHELD:
            assert "concept" not in resource


def test_the_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in CONTENT.iterdir()) < 1_500_000


def test_our_codes_are_all_in_our_code_systems() -> None:
    tables = (codes.FINDINGS, codes.MORPHOLOGY, codes.PFIRRMANN, codes.OPTIONS, codes.REGISTRATION_REASONS)
    single = (codes.SYNTHETIC, codes.AI_GENERATED, codes.MODEL_RECALLED, codes.ANALYSE_STUDY, codes.RECOMMEND_OPTIONS)
    for code in (*single, *(item for table in tables for item in table.values())):
        system = LIBRARY.code_system(code.system)
        assert system is not None
        number = system.number(code.code)
        assert number is not None
        concept = system.concept(number)
        assert (concept.display, concept.named("zh")) == (code.display, code.display_zh)
    level = LIBRARY.code_system(systems.LEVEL)
    assert level is not None
    assert [level.concept(number).code for number in range(level.size)] == list(codes.LEVELS)


def test_our_maps_use_our_codes_and_legal_equivalences() -> None:
    legal = LIBRARY.code_system("http://hl7.org/fhir/concept-map-equivalence")
    assert legal is not None
    own = [url for url in LIBRARY.names("ConceptMap") if url.startswith(systems.BASE)]
    assert len(own) == 2
    for url in own:
        for group in (LIBRARY.find("ConceptMap", url) or {})["group"]:
            system = LIBRARY.code_system(group["source"])
            assert system is not None
            assert {item["code"] for item in group["element"]} == set(system.numbers)
            for element in group["element"]:
                assert all(legal.number(target["equivalence"]) is not None for target in element["target"])
                assert all("display" not in target for target in element["target"]), "names are licensed"


async def test_every_shipped_value_set_expands_or_says_why_not() -> None:
    service = Terminology()
    reasons: dict[str, int] = {}
    for url in LIBRARY.names("ValueSet"):
        try:
            expansion = await service.expand(url)
        except InteropError as exc:
            reasons[exc.message] = reasons.get(exc.message, 0) + 1
            continue
        assert expansion.total == len(expansion.codes)
        assert len({(item.system, item.code) for item in expansion.codes}) == expansion.total
        for coding in expansion.codes[:3]:
            answer = await service.validate_code(value_set=url, system=coding.system, code=coding.code)
            assert answer.result is True, (url, coding)
            assert service.contains(url, coding.system, coding.code) in (True, None)
    assert sum(reasons.values()) < 140
    assert set(reasons) == {
        "A grammar has no list of codes",
        "The value set imports another one that is not known here",
        "The value set needs a code system that is not known here",
        "The value set lists licensed codes that are not shipped; store the value set from your own copy to use it",
    }


def test_a_core_check_is_fast_and_never_waits() -> None:
    service = Terminology()
    gender = ("http://hl7.org/fhir/ValueSet/administrative-gender", "http://hl7.org/fhir/administrative-gender")
    assert service.contains(*gender, "male") is True
    assert service.contains(*gender, "Male") is False
    assert service.contains(gender[0], "urn:other", "male") is False
    assert service.contains("urn:none", gender[1], "male") is None
    assert service.contains("http://hl7.org/fhir/ValueSet/condition-code", systems.SNOMED, "1") is None
    assert service.contains("http://hl7.org/fhir/ValueSet/languages", systems.BCP47, "zh-CN") is True
    assert service.contains("http://hl7.org/fhir/ValueSet/all-languages", systems.BCP47, "zh-Hans-CN") is True
    assert service.contains("http://hl7.org/fhir/ValueSet/all-languages", systems.BCP47, "zh_CN") is False
    assert service.contains("http://hl7.org/fhir/ValueSet/mimetypes", systems.BCP13, "application/fhir+json") is True
    assert service.contains("http://hl7.org/fhir/ValueSet/ucum-units", systems.UCUM, "mm[Hg]") is True
    assert service.contains("http://hl7.org/fhir/ValueSet/ucum-bodylength", systems.UCUM, "cm") is True
    assert service.contains("http://hl7.org/fhir/ValueSet/ucum-bodylength", systems.UCUM, "kg") is False
