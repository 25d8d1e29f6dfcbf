"""Compose, exclude, import, unknown parts: three-valued answers; stored code systems that are not well formed."""

from __future__ import annotations

from typing import Any

import pytest

from foramen.kernel.errors import InteropError, InvalidRequestError, InvalidResourceError
from terminology.code_systems import MemoryCodeSystem
from terminology.concept_maps import Translator
from terminology.implicit import implicit_value_set
from terminology.model import Translation
from terminology.service import Terminology
from terminology.words import index_words, query_words

SYSTEM = "urn:synthetic:system"


class Stored:
    """Resources as users stored them."""

    def __init__(self, *resources: dict[str, Any]) -> None:
        self._found = {(item["resourceType"], item["url"]): item for item in resources}

    async def find(self, resource_type: str, url: str) -> dict[str, Any] | None:
        return self._found.get((resource_type, url.partition("|")[0]))


def value_set(url: str, *include: dict[str, Any], exclude: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    compose = {"include": list(include), **({"exclude": exclude} if exclude else {})}
    return {"resourceType": "ValueSet", "url": url, "status": "active", "compose": compose}


def listed(*codes: str, system: str = SYSTEM) -> dict[str, Any]:
    return {"system": system, "concept": [{"code": code} for code in codes]}


def system(*concepts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "CodeSystem", "url": SYSTEM, "content": "complete", "concept": list(concepts), **more}


async def _result(service: Terminology, url: str, code: str, of: str = SYSTEM) -> bool | None:
    return (await service.validate_code(value_set=url, system=of, code=code)).result


async def test_exclusion_of_an_unknown_value_set_makes_a_found_code_unsure() -> None:
    service = Terminology(source=Stored(value_set("urn:v", listed("a"), exclude=[{"valueSet": ["urn:unknown"]}])))
    assert await _result(service, "urn:v", "a") is None
    assert await _result(service, "urn:v", "b") is False


async def test_inclusion_of_an_unknown_value_set_makes_a_missing_code_unsure() -> None:
    service = Terminology(source=Stored(value_set("urn:v", listed("a"), {"valueSet": ["urn:unknown"]})))
    assert await _result(service, "urn:v", "a") is True
    assert await _result(service, "urn:v", "b") is None


async def test_an_unknown_system_is_unsure_and_an_enumeration_is_not() -> None:
    service = Terminology(source=Stored(value_set("urn:v", {"system": SYSTEM}, listed("x", system="urn:other"))))
    assert await _result(service, "urn:v", "a") is None
    assert await _result(service, "urn:v", "x", "urn:other") is True
    assert await _result(service, "urn:v", "y", "urn:other") is False


async def test_a_fragment_does_not_say_no() -> None:
    stored = Stored(system({"code": "a"}, content="fragment"), value_set("urn:v", {"system": SYSTEM}))
    service = Terminology(source=stored)
    assert await _result(service, "urn:v", "a") is True
    assert await _result(service, "urn:v", "b") is None
    assert (await service.validate_code(value_set=None, system=SYSTEM, code="b")).result is None


async def test_a_code_without_system_is_found_in_any_system_of_the_value_set() -> None:
    service = Terminology(source=Stored(value_set("urn:v", listed("a"), listed("b", system="urn:other"))))
    answer = await service.validate_code(value_set="urn:v", system=None, code="b")
    assert (answer.result, answer.system) == (True, "urn:other")


async def test_case_is_folded_where_the_system_says_so() -> None:
    stored = Stored(system({"code": "Ab"}, caseSensitive=False), value_set("urn:v", {"system": SYSTEM}))
    service = Terminology(source=stored)
    assert await _result(service, "urn:v", "aB") is True


async def test_nested_imports_with_a_cycle_are_refused() -> None:
    stored = Stored(
        value_set("urn:a", {"valueSet": ["urn:b"]}),
        value_set("urn:b", {"valueSet": ["urn:c"]}),
        value_set("urn:c", {"valueSet": ["urn:a|1"]}),
    )
    with pytest.raises(InvalidRequestError) as refusal:
        await Terminology(source=stored).expand("urn:a")
    assert refusal.value.issue_code == "processing"


async def test_the_same_import_twice_is_no_cycle() -> None:
    stored = Stored(
        value_set("urn:a", {"valueSet": ["urn:b"]}, {"valueSet": ["urn:c"]}),
        value_set("urn:b", {"valueSet": ["urn:c"]}),
        value_set("urn:c", listed("x")),
    )
    assert [item.code for item in (await Terminology(source=stored).expand("urn:a")).codes] == ["x"]


async def test_an_unknown_filter_operator_is_refused() -> None:
    include = {"system": SYSTEM, "filter": [{"property": "p", "op": "child-of", "value": "x"}]}
    with pytest.raises(InvalidRequestError):
        await Terminology(source=Stored(value_set("urn:v", include))).expand("urn:v")


async def test_an_expansion_alone_is_a_list() -> None:
    contains = [{"system": SYSTEM, "code": "a", "contains": [{"system": SYSTEM, "code": "b"}]}]
    resource = {"resourceType": "ValueSet", "url": "urn:v", "expansion": {"contains": contains}}
    service = Terminology(source=Stored(resource))
    assert [item.code for item in (await service.expand("urn:v")).codes] == ["a", "b"]


async def test_core_goes_before_stored_except_where_a_part_is_withheld() -> None:
    gender = "http://hl7.org/fhir/ValueSet/administrative-gender"
    withheld = "http://hl7.org/fhir/ValueSet/audit-event-outcome"
    licensed = next(
        url
        for url in Terminology().library.names("ValueSet")
        if any(
            part.get("withheld") for part in (Terminology().library.find("ValueSet", url) or {})["compose"]["include"]
        )
    )
    stored = Stored(*(value_set(url, listed("mine")) for url in (gender, withheld, licensed)))
    service = Terminology(source=stored)
    assert await _result(service, gender, "mine") is False
    assert await _result(service, licensed, "mine") is True
    assert (
        await Terminology().validate_code(value_set=licensed, system="http://snomed.info/sct", code="1")
    ).result is None


@pytest.mark.parametrize(
    "resource",
    [
        system({"code": "a"}, {"code": "a"}),
        system({"code": "a", "property": [{"code": "parent", "valueCode": "a"}]}),
        system({"code": "a", "concept": [{"code": "b", "property": [{"code": "child", "valueCode": "a"}]}]}),
    ],
)
def test_a_code_system_that_contradicts_itself_is_refused(resource: dict[str, Any]) -> None:
    with pytest.raises(InvalidResourceError):
        MemoryCodeSystem(resource)


def test_too_many_concepts_and_too_deep_a_nesting_are_refused() -> None:
    deep: dict[str, Any] = {"code": "0"}
    for number in range(1, 60):
        deep = {"code": str(number), "concept": [deep]}
    with pytest.raises(InvalidResourceError) as refusal:
        MemoryCodeSystem(system(deep))
    assert refusal.value.issue_code == "too-costly"
    with pytest.raises(InvalidResourceError):
        MemoryCodeSystem(system(*({"code": str(number)} for number in range(50_001))))


def test_implicit_value_sets() -> None:
    def include(url: str) -> dict[str, Any]:
        found = implicit_value_set(url)
        assert found is not None
        part: dict[str, Any] = found["compose"]["include"][0]
        return part

    assert "filter" not in include("http://snomed.info/sct?fhir_vs")
    assert include("http://snomed.info/sct?fhir_vs=isa/123")["filter"][0]["op"] == "is-a"
    versioned = include("http://snomed.info/sct/900000000000207008/version/20260131?fhir_vs=refset/5")
    assert versioned["version"] == "http://snomed.info/sct/900000000000207008/version/20260131"
    assert implicit_value_set("http://example.org/vs") is None
    with pytest.raises(InteropError):
        implicit_value_set("http://snomed.info/sct?fhir_vs=ecl/<<1")


async def _translated(group: dict[str, Any], code: str, *others: dict[str, Any]) -> Translation:
    concept_map = {
        "resourceType": "ConceptMap",
        "url": "urn:m",
        "group": [{"source": SYSTEM, "target": "urn:t", **group}],
    }
    return await Terminology(source=Stored(concept_map, *others)).translate(system=SYSTEM, code=code, url="urn:m")


async def test_unmapped_codes() -> None:
    element = [{"code": "a", "target": [{"code": "b", "equivalence": "equivalent"}]}]
    assert (await _translated({"element": element}, "x")).result is False
    found = await _translated({"element": element, "unmapped": {"mode": "provided"}}, "x")
    assert found.matches[0].coding.code == "x"
    found = await _translated({"element": element, "unmapped": {"mode": "fixed", "code": "other"}}, "x")
    assert found.matches[0].coding.code == "other"
    onward = {"element": element, "unmapped": {"mode": "other-map", "url": "urn:m"}}
    with pytest.raises(InvalidRequestError):
        await _translated(onward, "x")


async def test_unmatched_is_no_match_and_is_told() -> None:
    group = {"element": [{"code": "a", "target": [{"equivalence": "unmatched", "comment": "none"}]}]}
    found = await _translated(group, "a")
    assert found.result is False
    assert found.matches[0].equivalence == "unmatched"
    assert Translator is not None


def test_words_are_found_by_their_beginnings_and_chinese_anywhere() -> None:
    words = index_words("腰椎间盘突出 L4-L5 Disc herniation M51.2（术后）")
    beginnings, whole = query_words("hern 椎间盘 M51.")
    assert all(any(word.startswith(start) for word in words) for start in beginnings)
    assert set(whole) <= words
    assert set(query_words("后")[1]) <= words
    assert not set(query_words("盘间")[1]) <= words
    assert query_words("．！") == ([], [])


async def test_unknown_urls_leave_no_trace_in_memory() -> None:
    service = Terminology()
    for number in range(50):
        assert service.contains(f"urn:none:{number}", "urn:x", "a") is None
        assert (await service.validate_code(value_set=None, system=f"urn:none:{number}", code="a")).result is None
    assert not service._members._tests
    assert not service.library._systems


async def test_answers_are_not_taken_from_a_system_that_is_gone() -> None:
    resource = value_set("urn:v", {"system": SYSTEM, "filter": [{"property": "p", "op": "=", "value": "1"}]})
    for number in range(20):
        concept = {"code": f"c{number}", "property": [{"code": "p", "valueString": "1"}]}
        service_source = Stored(system(*({"code": f"x{place}"} for place in range(number)), concept), resource)
        service = Terminology(source=service_source)
        assert [item.code for item in (await service.expand("urn:v")).codes] == [f"c{number}"]
