"""Terminology operations over HTTP. https://hl7.org/fhir/R4/terminology-service.html"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from terminology import systems
from tests.contract.fhir.api import Api, refused

GENDER = "http://hl7.org/fhir/ValueSet/administrative-gender"
GENDERS = "http://hl7.org/fhir/administrative-gender"
ACT_CLASS = "http://terminology.hl7.org/CodeSystem/v3-ActClass"
OWN = "https://example.org/SYNTHETIC"


async def _ok(api: Api, path: str) -> dict[str, Any]:
    response = await api.get(f"/fhir/{path}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def _values(body: dict[str, Any]) -> dict[str, Any]:
    assert body["resourceType"] == "Parameters"
    return {
        p["name"]: next((v for k, v in p.items() if k.startswith("value")), p.get("part")) for p in body["parameter"]
    }


def _parameters(**values: Any) -> dict[str, Any]:
    parts = []
    for name, value in values.items():
        kind = "resource" if isinstance(value, dict) and "resourceType" in value else None
        if isinstance(value, dict) and kind is None:
            kind = "valueCodeableConcept" if name == "codeableConcept" else "valueCoding"
        kind = kind or {bool: "valueBoolean", int: "valueInteger"}.get(type(value), "valueUri")
        parts.append({"name": name, kind: value})
    return {"resourceType": "Parameters", "parameter": parts}


def code_system(identity: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "CodeSystem",
        "id": identity,
        "url": f"{OWN}/CodeSystem/{identity}",
        "status": "active",
        "content": "complete",
        "concept": [
            {
                "code": "spine",
                "display": "Spine",
                "concept": [
                    {"code": "disc", "display": "Disc", "designation": [{"language": "zh", "value": "椎间盘"}]},
                    {"code": "root", "display": "Nerve root", "property": [{"code": "side", "valueCode": "left"}]},
                ],
            },
            {"code": "old", "display": "Old", "property": [{"code": "inactive", "valueBoolean": True}]},
        ],
        **more,
    }


def value_set(identity: str, compose: dict[str, Any], **more: Any) -> dict[str, Any]:
    url = f"{OWN}/ValueSet/{identity}"
    return {"resourceType": "ValueSet", "id": identity, "url": url, "status": "active", "compose": compose, **more}


async def test_a_code_of_a_core_value_set_is_valid_and_another_is_not(module_api: Api) -> None:
    path = f"ValueSet/$validate-code?url={GENDER}&system={GENDERS}&code="
    found = _values(await _ok(module_api, path + "female"))
    assert found == {"result": True, "display": "Female"}
    found = _values(await _ok(module_api, path + "f"))
    assert found["result"] is False
    assert "value set" in found["message"]


async def test_the_code_in_question_is_never_echoed(module_api: Api) -> None:
    response = await module_api.get(f"/fhir/ValueSet/$validate-code?url={GENDER}&system={GENDERS}&code=Zzyzx")
    assert "Zzyzx" not in response.text


async def test_what_is_not_known_is_an_error_and_not_false(module_api: Api) -> None:
    refused(await module_api.get("/fhir/ValueSet/$validate-code?url=urn:none&code=a&system=urn:x"), 404, "not-found")
    refused(await module_api.get("/fhir/CodeSystem/$validate-code?url=urn:none&code=a"), 404, "not-found")
    sct = "http://hl7.org/fhir/ValueSet/condition-code"
    response = await module_api.get(f"/fhir/ValueSet/$validate-code?url={sct}&system={systems.SNOMED}&code=1")
    refused(response, 404, "not-found")
    refused(await module_api.get("/fhir/ValueSet/$expand?url=urn:none"), 404, "not-found")
    refused(await module_api.get("/fhir/CodeSystem/$lookup?system=urn:none&code=a"), 404, "not-found")
    refused(await module_api.get(f"/fhir/CodeSystem/$lookup?system={GENDERS}&code=zz"), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("CodeSystem/$lookup?system=x", "required"),
        ("CodeSystem/$lookup?code=x", "required"),
        ("CodeSystem/$lookup?code=x&system=y&colour=red", "not-supported"),
        ("CodeSystem/$subsumes?codeA=a&system=x", "required"),
        ("ValueSet/$expand", "required"),
        (f"ValueSet/$expand?url={GENDER}&count=many", "value"),
        (f"ValueSet/$validate-code?url={GENDER}", "required"),
        ("ValueSet/$expand?url=http://snomed.info/sct?fhir_vs=ecl/%3C404684003", "not-supported"),
        ("ValueSet/$expand?url=http://hl7.org/fhir/ValueSet/all-languages", "too-costly"),
    ],
)
async def test_bad_questions_are_refused(module_api: Api, path: str, code: str) -> None:
    refused(await module_api.get(f"/fhir/{path}"), 400, code)


async def test_a_concept_is_valid_when_one_of_its_codings_is(module_api: Api) -> None:
    concept = {"coding": [{"system": "urn:none", "code": "x"}, {"system": GENDERS, "code": "male"}]}
    body = _parameters(url=GENDER, codeableConcept=concept)
    response = await module_api.post("/fhir/ValueSet/$validate-code", body)
    assert _values(response.json())["result"] is True


async def test_a_wrong_display_is_said(module_api: Api) -> None:
    coding = {"system": GENDERS, "code": "male", "display": "Female"}
    response = await module_api.post("/fhir/ValueSet/$validate-code", _parameters(url=GENDER, coding=coding))
    found = _values(response.json())
    assert found["result"] is False
    assert found["display"] == "Male"
    coding["display"] = "  MALE "
    response = await module_api.post("/fhir/ValueSet/$validate-code", _parameters(url=GENDER, coding=coding))
    assert _values(response.json())["result"] is True


async def test_lookup_of_our_own_code_speaks_chinese(module_api: Api) -> None:
    body = await _ok(module_api, f"CodeSystem/$lookup?system={systems.OPTION}&code=O06&displayLanguage=zh-CN")
    assert _values(body)["display"] == "经皮椎间孔镜髓核摘除术"
    body = await _ok(module_api, f"CodeSystem/$lookup?system={systems.OPTION}&code=O06&property=parent")
    assert "designation" not in _values(body)


async def test_lookup_names_parents_and_children(module_api: Api) -> None:
    body = await _ok(module_api, f"CodeSystem/$lookup?system={ACT_CLASS}&code=OBS")
    codes = [part["part"][0]["valueCode"] for part in body["parameter"] if part["name"] == "property"]
    assert {"parent", "child", "inactive"} <= set(codes)


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("ACT", "OBS", "subsumes"),
        ("OBS", "ACT", "subsumed-by"),
        ("OBS", "OBS", "equivalent"),
        ("OBS", "PROC", "not-subsumed"),
    ],
)
async def test_subsumption(module_api: Api, first: str, second: str, outcome: str) -> None:
    body = await _ok(module_api, f"CodeSystem/$subsumes?system={ACT_CLASS}&codeA={first}&codeB={second}")
    assert _values(body)["outcome"] == outcome


async def test_expansion_is_paged_and_counted(module_api: Api) -> None:
    url = "http://hl7.org/fhir/ValueSet/languages"
    everything = (await _ok(module_api, f"ValueSet/$expand?url={url}"))["expansion"]
    codes = [item["code"] for item in everything["contains"]]
    assert everything["total"] == len(codes) == len(set(codes))
    paged: list[str] = []
    while True:
        page = (await _ok(module_api, f"ValueSet/$expand?url={url}&count=10&offset={len(paged)}"))["expansion"]
        assert page["total"] == len(codes)
        if "contains" not in page:
            break
        paged += [item["code"] for item in page["contains"]]
    assert paged == codes


async def test_expansion_filter_finds_words_in_both_languages(module_api: Api) -> None:
    url = "https://foramen.example/fhir/ValueSet/option"

    async def found(text: str) -> list[str]:
        body = await _ok(module_api, f"ValueSet/$expand?url={url}&filter={text}")
        return [item["code"] for item in body["expansion"].get("contains", [])]

    assert await found("transf endosc") == ["O06"]
    assert await found("椎间孔镜") == ["O06"]
    assert await found("nothing") == []
    assert await found("") != []


async def test_designations_and_language_of_an_expansion(module_api: Api) -> None:
    path = "ValueSet/$expand?url=https://foramen.example/fhir/ValueSet/morphology&includeDesignations=true"
    first = (await _ok(module_api, path))["expansion"]["contains"][1]
    assert (first["display"], first["designation"][0]["value"]) == ("Bulge", "膨出")
    first = (await _ok(module_api, path + "&displayLanguage=zh"))["expansion"]["contains"][1]
    assert first["display"] == "膨出"


async def test_stored_terminology_takes_part(module_api: Api) -> None:
    system = code_system("stored")
    await module_api.put_ok(system)
    include = [{"system": system["url"], "filter": [{"property": "concept", "op": "is-a", "value": "spine"}]}]
    exclude = [{"system": system["url"], "concept": [{"code": "root"}]}]
    stored = value_set("stored", {"include": include, "exclude": exclude})
    await module_api.put_ok(stored)
    body = await _ok(module_api, f"ValueSet/$expand?url={stored['url']}")
    assert [item["code"] for item in body["expansion"]["contains"]] == ["spine", "disc"]
    body = await _ok(module_api, "ValueSet/stored/$expand?filter=椎间盘")
    assert [item["code"] for item in body["expansion"]["contains"]] == ["disc"]
    for code, result in (("disc", True), ("root", False), ("old", False)):
        path = f"ValueSet/stored/$validate-code?system={system['url']}&code={code}"
        assert _values(await _ok(module_api, path))["result"] is result
    body = await _ok(module_api, f"CodeSystem/$lookup?system={system['url']}&code=root")
    assert any(p.get("part", [{}])[0].get("valueCode") == "side" for p in body["parameter"])
    assert _values(await _ok(module_api, "CodeSystem/stored/$validate-code?code=disc"))["result"] is True
    body = await _ok(module_api, "CodeSystem/stored/$subsumes?codeA=spine&codeB=root")
    assert _values(body)["outcome"] == "subsumes"


async def test_a_newer_version_is_seen_at_once(module_api: Api) -> None:
    system = code_system("growing")
    await module_api.put_ok(system)
    path = f"CodeSystem/$validate-code?url={system['url']}&code=new"
    assert _values(await _ok(module_api, path))["result"] is False
    system["concept"].append({"code": "new"})
    await module_api.put_ok(system)
    assert _values(await _ok(module_api, path))["result"] is True


async def test_active_only_leaves_retired_concepts_out(module_api: Api) -> None:
    system = code_system("retired")
    await module_api.put_ok(system)
    inline = {"resourceType": "ValueSet", "status": "active", "compose": {"include": [{"system": system["url"]}]}}
    response = await module_api.post("/fhir/ValueSet/$expand", _parameters(valueSet=inline))
    assert [item.get("inactive", False) for item in response.json()["expansion"]["contains"]] == [False] * 3 + [True]
    response = await module_api.post("/fhir/ValueSet/$expand", _parameters(valueSet=inline, activeOnly=True))
    assert response.json()["expansion"]["total"] == 3


async def test_a_value_set_may_be_sent_as_the_body(module_api: Api) -> None:
    inline = value_set("body", {"include": [{"system": GENDERS, "concept": [{"code": "male"}]}]})
    response = await module_api.post("/fhir/ValueSet/$expand", inline)
    assert response.status_code == 200, response.text
    assert response.json()["expansion"]["contains"] == [
        {"system": GENDERS, "version": "4.0.1", "code": "male", "display": "Male"}
    ]


async def test_a_value_set_that_includes_itself_is_refused(module_api: Api) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        compose = {"include": [{"valueSet": [f"{OWN}/ValueSet/cycle-{other}"]}]}
        await module_api.put_ok(value_set(f"cycle-{one}", compose))
    refused(await module_api.get("/fhir/ValueSet/cycle-a/$expand"), 400, "processing")


async def test_imports_intersect_and_unknown_ones_are_said(module_api: Api) -> None:
    compose = {"include": [{"valueSet": [GENDER, f"{OWN}/ValueSet/two"]}]}
    two = {"include": [{"system": GENDERS, "concept": [{"code": "male"}, {"code": "other"}]}]}
    await module_api.put_ok(value_set("two", two))
    await module_api.put_ok(value_set("both", compose))
    body = await _ok(module_api, "ValueSet/both/$expand")
    assert [item["code"] for item in body["expansion"]["contains"]] == ["male", "other"]
    partly = {"include": [{"system": GENDERS, "concept": [{"code": "male"}]}, {"valueSet": ["urn:unknown"]}]}
    await module_api.put_ok(value_set("partly", partly))
    refused(await module_api.get("/fhir/ValueSet/partly/$expand"), 404, "not-found")
    path = f"ValueSet/partly/$validate-code?system={GENDERS}&code="
    assert _values(await _ok(module_api, path + "male"))["result"] is True
    refused(await module_api.get(f"/fhir/{path}female"), 404, "not-found")


async def test_regular_expressions_are_bounded(module_api: Api) -> None:
    include = [{"system": GENDERS, "filter": [{"property": "code", "op": "regex", "value": "(fe)?male"}]}]
    response = await module_api.post("/fhir/ValueSet/$expand", value_set("regex", {"include": include}))
    assert [item["code"] for item in response.json()["expansion"]["contains"]] == ["male", "female"]
    for pattern in ("(a", "(?=a)b", "a" * 500):
        include[0]["filter"][0]["value"] = pattern  # type: ignore[index]
        response = await module_api.post("/fhir/ValueSet/$expand", value_set("regex", {"include": include}))
        assert response.status_code == 400


async def test_translation_forwards_and_backwards(module_api: Api) -> None:
    path = f"ConceptMap/$translate?system={systems.MORPHOLOGY}&code=extrusion&targetsystem={systems.ICD10}"
    body = await _ok(module_api, path)
    match = {part["name"]: part for part in body["parameter"] if part["name"] == "match"}["match"]["part"]
    assert _values(body)["result"] is True
    assert match[1]["valueCoding"]["code"] == "M51.2"
    body = await _ok(module_api, f"ConceptMap/$translate?system={systems.ICD10}&code=M51.2&reverse=true")
    codes = {part["part"][1]["valueCoding"]["code"] for part in body["parameter"] if part["name"] == "match"}
    assert "extrusion" in codes
    body = await _ok(module_api, f"ConceptMap/$translate?system={systems.MORPHOLOGY}&code=normal")
    assert _values(body)["result"] is False


async def test_a_stored_map_goes_before_ours(module_api: Api) -> None:
    url = "https://foramen.example/fhir/ConceptMap/option-to-icd-9-cm-3"
    target = [{"code": "80.5199", "equivalence": "equivalent"}]
    group = {"source": systems.OPTION, "target": "urn:hospital", "element": [{"code": "O06", "target": target}]}
    await module_api.put_ok(
        {"resourceType": "ConceptMap", "id": "coders", "url": url, "status": "active", "group": [group]}
    )
    for path in (f"ConceptMap/$translate?url={url}", "ConceptMap/coders/$translate?"):
        body = await _ok(module_api, f"{path}&system={systems.OPTION}&code=O06")
        assert body["parameter"][1]["part"][1]["valueCoding"]["code"] == "80.5199"


async def test_scopes_are_checked(module_api: Api) -> None:
    stranger = module_api.as_("system/Patient.rs")
    refused(await stranger.get(f"/fhir/ValueSet/$expand?url={GENDER}"), 403, "forbidden")
    response = await module_api.http.get(f"/fhir/ValueSet/$expand?url={GENDER}")
    assert response.status_code == 401
    reader = module_api.as_("user/ValueSet.rs")
    assert (await reader.get(f"/fhir/ValueSet/$expand?url={GENDER}")).status_code == 200


async def test_units_are_checked_by_their_grammar(module_api: Api) -> None:
    path = f"CodeSystem/$validate-code?url={systems.UCUM}&code="
    assert _values(await _ok(module_api, path + "mm%5BHg%5D"))["result"] is True
    assert _values(await _ok(module_api, path + "mmHg"))["result"] is False


async def test_a_large_value_set_needs_pages(module_api: Api) -> None:
    system = code_system("large", concept=[{"code": f"c{number}"} for number in range(10_001)])
    await module_api.put_ok(system)
    inline = value_set("large", {"include": [{"system": system["url"]}]})
    response = await module_api.post("/fhir/ValueSet/$expand", _parameters(valueSet=inline))
    refused(response, 400, "too-costly")
    response = await module_api.post("/fhir/ValueSet/$expand", _parameters(valueSet=inline, count=2, offset=9_999))
    assert [item["code"] for item in response.json()["expansion"]["contains"]] == ["c9999", "c10000"]


_NESTED = {"include": [{"system": GENDERS, "filter": [{"property": "concept", "op": "is-a", "value": "male"}]}]}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in _places(item, (*path, key)))]


@pytest.mark.parametrize("wrong", [None, 5, "", "\u0000", [], {}, [None], True, "x" * 5000, {"a": {"b": []}}])
async def test_a_value_set_that_is_not_well_formed_is_refused_without_a_crash(module_api: Api, wrong: Any) -> None:
    for operation in ("$expand", f"$validate-code?system={GENDERS}&code=male"):
        for path in _places(_NESTED)[1:]:
            compose = copy.deepcopy(_NESTED)
            target: Any = compose
            for step in path[:-1]:
                target = target[step]
            target[path[-1]] = wrong
            response = await module_api.post(f"/fhir/ValueSet/{operation}", value_set("fuzz", compose))
            assert response.status_code < 500, (path, wrong, response.text)


@pytest.mark.parametrize("wrong", [None, 5, [], {"code": 5}, {"code": ["a"]}, {"system": 1, "code": "a"}, "text"])
async def test_a_coding_that_is_not_well_formed_is_refused(module_api: Api, wrong: Any) -> None:
    part = {"name": "coding", "valueCoding": wrong}
    body = {"resourceType": "Parameters", "parameter": [{"name": "url", "valueUri": GENDER}, part]}
    for operation in ("ValueSet/$validate-code", "CodeSystem/$lookup", "ConceptMap/$translate"):
        response = await module_api.post(f"/fhir/{operation}", body)
        assert response.status_code == 400, response.text
    concept = {"name": "codeableConcept", "valueCodeableConcept": {"coding": wrong}}
    response = await module_api.post(
        "/fhir/ValueSet/$validate-code", {**body, "parameter": [body["parameter"][0], concept]}
    )
    assert response.status_code == 400, response.text


async def test_stored_content_is_unknown_to_who_may_not_read_it(module_api: Api) -> None:
    system = code_system("hidden")
    listed = value_set("hidden", {"include": [{"system": system["url"]}]})
    concept_map = {
        "resourceType": "ConceptMap",
        "id": "hidden",
        "url": f"{OWN}/ConceptMap/hidden",
        "status": "active",
        "group": [
            {
                "source": system["url"],
                "target": GENDERS,
                "element": [{"code": "disc", "target": [{"code": "other", "equivalence": "equivalent"}]}],
            }
        ],
    }
    for resource in (system, listed, concept_map):
        await module_api.put_ok(resource)
    code = f"system={system['url']}&code=disc"
    paths = {
        "ValueSet": [f"ValueSet/$expand?url={listed['url']}", f"ValueSet/$validate-code?url={listed['url']}&{code}"],
        "CodeSystem": [
            f"CodeSystem/$lookup?{code}",
            f"CodeSystem/$validate-code?{code}",
            f"CodeSystem/$subsumes?system={system['url']}&codeA=spine&codeB=disc",
        ],
        "ConceptMap": [f"ConceptMap/$translate?url={concept_map['url']}&{code}"],
    }
    everything = [path for group in paths.values() for path in group]
    bound = module_api.as_("patient/*.rs", patient="somebody")
    for path in everything:
        await _ok(module_api, path)
        refused(await bound.get(f"/fhir/{path}"), 404, "not-found")
    assert (await bound.get(f"/fhir/ValueSet/$expand?url={GENDER}")).status_code == 200
    # The value set may be read, and not the code system that it lists.
    partly = module_api.as_("user/ValueSet.rs")
    for path in paths["ValueSet"]:
        refused(await partly.get(f"/fhir/{path}"), 404, "not-found")
    inline = value_set("mine", {"include": [{"system": system["url"]}]})
    refused(await partly.post("/fhir/ValueSet/$expand", _parameters(valueSet=inline)), 404, "not-found")
    reader = module_api.as_("user/ValueSet.r user/CodeSystem.r user/ConceptMap.r")
    for path in everything:
        await _ok(reader, path)
    searcher = module_api.as_("user/ValueSet.rs user/CodeSystem.s")
    refused(await searcher.get(f"/fhir/{paths['ValueSet'][0]}"), 404, "not-found")
