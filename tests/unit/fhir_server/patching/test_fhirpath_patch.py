"""FHIRPath Patch: every operation, choices, primitives with extensions, values without a type name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fhir_server.patching.exact_json import dump, load
from fhir_server.patching.fhirpath_patch import parse_fhirpath_patch
from foramen.kernel.errors import InteropError

PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "active": True,
    "name": [{"family": "Muster", "given": ["Anna", "Eva", "Ida"]}, {"text": "A"}],
    "birthDate": "1980-02-29",
    "_birthDate": {"extension": [{"url": "urn:a", "valueString": "x"}]},
    "contact": [{"gender": "male"}],
}


def part(name: str, **value: Any) -> dict[str, Any]:
    return {"name": name, **value}


def operation(kind: str, path: str, *parts: dict[str, Any], **numbers: int) -> dict[str, Any]:
    own = [part("type", valueCode=kind), part("path", valueString=path), *parts]
    own += [part(name, valueInteger=number) for name, number in numbers.items()]
    return {"name": "operation", "part": own}


def named(name: str) -> dict[str, Any]:
    return part("name", valueString=name)


def apply(document: dict[str, Any], *operations: dict[str, Any], max_bytes: int = 100_000) -> dict[str, Any]:
    patch = parse_fhirpath_patch(orjson.dumps({"resourceType": "Parameters", "parameter": list(operations)}), 100)
    found = patch.apply(load(orjson.dumps(document)), document["resourceType"], max_bytes)
    result: dict[str, Any] = orjson.loads(dump(found))
    return result


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("add", operation("add", "Patient", named("gender"), part("value", valueCode="female")), {"gender": "female"}),
    (
        "add to a list",
        operation("add", "Patient", named("name"), part("value", valueHumanName={"text": "B"})),
        {"name": [*PATIENT["name"], {"text": "B"}]},  # type: ignore[misc]
    ),
    (
        "add a new list",
        operation("add", "Patient.name[1]", named("given"), part("value", valueString="Z")),
        {"name": [PATIENT["name"][0], {"text": "A", "given": ["Z"]}]},  # type: ignore[index]
    ),
    (
        "add a choice",
        operation("add", "Patient", named("deceased"), part("value", valueDateTime="2026-01-01")),
        {"deceasedDateTime": "2026-01-01"},
    ),
    (
        "add a value without a type name",
        operation(
            "add",
            "Patient",
            named("contact"),
            part(
                "value",
                part=[
                    part("name", valueHumanName={"text": "C"}),
                    part("telecom", valueContactPoint={"value": "1"}),
                    part("telecom", valueContactPoint={"value": "2"}),
                ],
            ),
        ),
        {"contact": [{"gender": "male"}, {"name": {"text": "C"}, "telecom": [{"value": "1"}, {"value": "2"}]}]},
    ),
    (
        "add an extension to a primitive of a list",
        operation(
            "add",
            "Patient.name[0].given[1]",
            named("extension"),
            part("value", part=[part("url", valueUri="urn:b"), part("value", valueCode="c")]),
        ),
        {
            "name": [
                {
                    "family": "Muster",
                    "given": ["Anna", "Eva", "Ida"],
                    "_given": [None, {"extension": [{"url": "urn:b", "valueCode": "c"}]}, None],
                },
                {"text": "A"},
            ]
        },
    ),
    ("delete", operation("delete", "Patient.active"), {"active": None}),
    ("delete what is not there", operation("delete", "Patient.gender"), {}),
    (
        "delete a primitive with extensions",
        operation("delete", "Patient.birthDate"),
        {"birthDate": None, "_birthDate": None},
    ),
    (
        "delete an item",
        operation("delete", "Patient.name.given.where($this = 'Eva')"),
        {"name": [{"family": "Muster", "given": ["Anna", "Ida"]}, {"text": "A"}]},
    ),
    (
        "delete an extension of a primitive",
        operation("delete", "Patient.birthDate.extension"),
        {"_birthDate": {}},
    ),
    (
        "replace",
        operation("replace", "Patient.birthDate", part("value", valueDate="1981-01-01")),
        {"birthDate": "1981-01-01", "_birthDate": None},
    ),
    (
        "replace an item",
        operation("replace", "Patient.name[0].given[0]", part("value", valueString="Ana")),
        {"name": [{"family": "Muster", "given": ["Ana", "Eva", "Ida"]}, {"text": "A"}]},
    ),
    (
        "insert",
        operation("insert", "Patient.name[0].given", part("value", valueString="X"), index=1),
        {"name": [{"family": "Muster", "given": ["Anna", "X", "Eva", "Ida"]}, {"text": "A"}]},
    ),
    (
        "insert at the end",
        operation("insert", "Patient.name[0].given", part("value", valueString="X"), index=3),
        {"name": [{"family": "Muster", "given": ["Anna", "Eva", "Ida", "X"]}, {"text": "A"}]},
    ),
    (
        "insert into a list that is not there",
        operation("insert", "Patient.photo", part("value", valueAttachment={"title": "t"}), index=0),
        {"photo": [{"title": "t"}]},
    ),
    (
        "move",
        operation("move", "Patient.name[0].given", source=2, destination=0),
        {"name": [{"family": "Muster", "given": ["Ida", "Anna", "Eva"]}, {"text": "A"}]},
    ),
]


@pytest.mark.parametrize(("step", "changed"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_applies(step: dict[str, Any], changed: dict[str, Any]) -> None:
    expected = {name: value for name, value in {**PATIENT, **changed}.items() if value is not None}
    assert apply(PATIENT, step) == expected


def test_replacing_a_choice_by_another_type_renames_it_in_place() -> None:
    observation = {"resourceType": "Observation", "status": "final", "valueString": "x", "note": [{"text": "n"}]}
    step = operation("replace", "Observation.value", part("value", valueQuantity={"value": 1.5}))
    found = apply(observation, step)
    assert list(found) == ["resourceType", "status", "valueQuantity", "note"]


def test_numbers_keep_their_text() -> None:
    text = b'{"resourceType":"Observation","status":"final","valueQuantity":{"value":1.00}}'
    step = operation("replace", "Observation.status", part("value", valueCode="amended"))
    patch = parse_fhirpath_patch(orjson.dumps({"resourceType": "Parameters", "parameter": [step]}), 10)
    found = dump(patch.apply(load(text), "Observation", 10_000))
    assert found == b'{"resourceType":"Observation","status":"amended","valueQuantity":{"value":1.00}}'
    value = b'{"name":"value","valueDecimal":2.50}'
    body = orjson.dumps({"resourceType": "Parameters", "parameter": [operation("replace", "Observation.value.value")]})
    body = body.replace(b"]}]}", b"," + value + b"]}]}")
    assert b'"value":2.50' in dump(parse_fhirpath_patch(body, 10).apply(load(text), "Observation", 10_000))


def test_operations_see_what_those_before_them_did() -> None:
    found = apply(
        PATIENT,
        operation("add", "Patient", named("gender"), part("value", valueCode="female")),
        operation("replace", "Patient.gender", part("value", valueCode="other")),
        operation("delete", "Patient.name[1]"),
        operation("delete", "Patient.name[0].given[0]"),
    )
    assert found["gender"] == "other"
    assert found["name"] == [{"family": "Muster", "given": ["Eva", "Ida"]}]


REFUSED: list[tuple[str, dict[str, Any], int]] = [
    ("add what is there", operation("add", "Patient", named("active"), part("value", valueBoolean=False)), 422),
    ("several elements", operation("delete", "Patient.name"), 422),
    ("nothing to replace", operation("replace", "Patient.gender", part("value", valueCode="male")), 422),
    ("unknown element", operation("add", "Patient", named("colour"), part("value", valueCode="red")), 422),
    ("computed value", operation("delete", "Patient.name.count()"), 422),
    ("the resource", operation("delete", "Patient"), 422),
    (
        "index past the end",
        operation("insert", "Patient.name", part("value", valueHumanName={"text": "B"}), index=9),
        422,
    ),
    ("a part of a list", operation("move", "Patient.name[0].given.take(2)", source=0, destination=1), 422),
    ("bad path", operation("delete", "Patient.name["), 400),
    ("no value", operation("add", "Patient", named("gender")), 400),
    ("unknown type", operation("upsert", "Patient"), 400),
    (
        "wrong kind of value",
        operation("add", "Patient", named("gender"), part("value", valueHumanName={"text": "x"})),
        400,
    ),
    ("negative index", operation("insert", "Patient.name", part("value", valueHumanName={}), index=-1), 400),
    ("unknown part", operation("delete", "Patient.active", part("extra", valueString="x")), 400),
    ("no parts", {"name": "operation"}, 400),
    ("another parameter", {"name": "resource", "part": []}, 400),
]


@pytest.mark.parametrize(("step", "status"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refuses(step: dict[str, Any], status: int) -> None:
    with pytest.raises(InteropError) as caught:
        apply(PATIENT, step)
    assert caught.value.status == status, caught.value.message


def test_the_work_of_all_paths_is_bounded() -> None:
    steps = [operation("delete", "Patient.gender")] * 100
    with pytest.raises(InteropError) as caught:
        apply(PATIENT, *steps, max_bytes=5000)
    assert caught.value.status == 413


def test_a_patch_can_be_applied_again() -> None:
    """A writer whom another overtook applies the same patch to what then stands."""
    steps = [
        operation("add", "Patient", named("name"), part("value", valueHumanName={"text": "B"})),
        operation("add", "Patient.name[2]", named("given"), part("value", valueString="C")),
    ]
    patch = parse_fhirpath_patch(orjson.dumps({"resourceType": "Parameters", "parameter": steps}), 10)
    found = [dump(patch.apply(load(orjson.dumps(PATIENT)), "Patient", 100_000)) for _ in range(2)]
    assert found[0] == found[1]
    assert orjson.loads(found[1])["name"][2] == {"text": "B", "given": ["C"]}
