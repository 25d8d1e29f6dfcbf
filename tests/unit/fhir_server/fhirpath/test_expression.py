"""Evaluation over JSON: types, locations, primitives with extensions, variables, resolve, strictness."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.expression import compile_expression
from fhir_server.fhirpath.references import stub

URL = "http://example.org/x"
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "name": [
        {
            "use": "official",
            "given": ["A", None, "B"],
            "_given": [None, {"extension": [{"url": URL, "valueCode": "c"}]}],
        },
        {"given": ["C"]},
    ],
    "birthDate": "1974-12-25",
    "_birthDate": {"id": "b", "extension": [{"url": URL, "valueDateTime": "1974-12-25T14:35:45-05:00"}]},
    "_gender": {"extension": [{"url": URL, "valueString": "unknown"}]},
    "multipleBirthInteger": 2,
    "contained": [{"resourceType": "Organization", "id": "o", "name": "SYNTHETIC"}],
    "managingOrganization": {"reference": "#o"},
    "generalPractitioner": [{"reference": "Practitioner/1"}, {"display": "SYNTHETIC"}],
}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "SYNTHETIC"},
    "valueQuantity": {"value": 185, "unit": "lbs", "system": "http://unitsofmeasure.org", "code": "[lb_av]"},
    "component": [{"code": {"text": "a"}, "valueString": "x"}, {"code": {"text": "b"}, "valueInteger": 3}],
}


def value(text: str, root: Any = PATIENT, **options: Any) -> list[Any]:
    return compile_expression(text).evaluate(root, **options)


def where(text: str, root: Any = PATIENT) -> list[tuple[str, tuple[str | int, ...]]]:
    return [(node.type_name, node.path) for node in compile_expression(text).nodes(root)]


def test_nodes_know_type_and_json_location() -> None:
    assert where("Patient.name.given") == [
        ("string", ("name", 0, "given", 0)),
        ("string", ("name", 0, "given", 1)),
        ("string", ("name", 0, "given", 2)),
        ("string", ("name", 1, "given", 0)),
    ]
    assert where("name.given.extension.value") == [("code", ("name", 0, "_given", 1, "extension", 0, "valueCode"))]
    assert where("birthDate.extension.value") == [("dateTime", ("_birthDate", "extension", 0, "valueDateTime"))]
    assert where("contained.name") == [("string", ("contained", 0, "name"))]
    assert where("id") == [("id", ("id",))]
    assert where("Observation.value", OBSERVATION) == [("Quantity", ("valueQuantity",))]
    assert where("component.value", OBSERVATION) == [
        ("string", ("component", 0, "valueString")),
        ("integer", ("component", 1, "valueInteger")),
    ]
    assert where("component", OBSERVATION)[0][0] == "Observation.component"
    assert where("1 + 1") == [("System.Integer", ())]


def test_a_primitive_with_only_extensions_is_there_but_has_no_value() -> None:
    assert value("gender.exists()") == [True]
    assert value("gender.hasValue()") == [False]
    assert value("gender") == []
    assert value("gender = 'male'") == [False]
    assert value("name[0].given.select(hasValue())") == [True, False, True]
    assert value("gender.extension('http://example.org/x').value") == ["unknown"]
    assert value("birthDate.id") == ["b"]


def test_children_and_descendants() -> None:
    assert value("children().count()") == [10]
    assert value("name.descendants().ofType(code)") == ["official", "c"]
    assert value("descendants().where($this is Organization).name") == ["SYNTHETIC"]
    assert value("birthDate.children().count()") == [2]


def test_choice_elements_are_found_by_their_stem_only() -> None:
    assert value("multipleBirth") == [2]
    assert value("multipleBirth is integer") == [True]
    assert value("multipleBirthInteger") == []
    assert value("value.unit", OBSERVATION) == ["lbs"]
    assert value("value.ofType(Quantity).value", OBSERVATION) == [185]
    assert value("component.value as string", OBSERVATION) == ["x"]


def test_the_name_of_the_type_may_lead() -> None:
    assert value("Patient.id") == ["p"]
    assert value("Resource.id") == ["p"]
    assert value("DomainResource.contained.id") == ["o"]
    assert value("Observation.id") == []
    assert value("(Patient.id | Observation.status)") == ["p"]


def test_variables() -> None:
    assert value("%a + 1", variables={"a": 2}) == [3]
    assert value("%a", variables={"a": ["x", "y"]}) == ["x", "y"]
    assert value("%n.given", variables={"n": {"resourceType": "Patient"}}) == []
    assert value("%resource.id = %rootResource.id and %context.id = 'p'") == [True]
    assert value("contained.select(%resource.id)") == ["p"]
    assert value("defineVariable('n', name.first()).select(%n.use)") == ["official"]
    assert value("%`vs-x`") == ["http://hl7.org/fhir/ValueSet/x"]
    with pytest.raises(FhirPathError, match="no variable"):
        value("%nothing")
    with pytest.raises(FhirPathError):
        value("defineVariable('a').defineVariable('a')")


def test_an_element_as_the_root() -> None:
    name = PATIENT["name"][0]
    assert value("given.first()", name, type_name="HumanName", resource=PATIENT) == ["A"]
    assert value("%resource.id", name, type_name="HumanName", resource=PATIENT) == ["p"]
    (node, *_) = compile_expression("name").nodes(PATIENT)
    (given, *_) = compile_expression("given").nodes(node, resource=PATIENT)
    assert given.path == ("name", 0, "given", 0)


def test_resolve() -> None:
    asked: list[str] = []

    def resolve(reference: str) -> dict[str, Any] | None:
        asked.append(reference)
        return {"resourceType": "Practitioner", "id": "1", "gender": "female"}

    assert value("managingOrganization.resolve().name") == ["SYNTHETIC"]
    assert value("generalPractitioner.resolve()") == []
    assert value("generalPractitioner.resolve().gender", resolve=resolve) == ["female"]
    assert asked == ["Practitioner/1"]
    assert value("generalPractitioner.where(resolve() is Practitioner).reference", resolve=stub) == ["Practitioner/1"]
    assert value("generalPractitioner.where(resolve() is Patient)", resolve=stub) == []
    assert stub("http://a.org/fhir/Patient/1/_history/2") == {"resourceType": "Patient", "id": "1"}
    assert stub("urn:uuid:1") is None
    assert stub("Nothing/1") is None


def test_hooks() -> None:
    assert value("birthDate.memberOf('u')", member_of=lambda item, url: url == "u") == [True]
    assert value("birthDate.memberOf('u')", member_of=lambda item, url: None) == []
    with pytest.raises(FhirPathError):
        value("birthDate.memberOf('u')")
    assert value("conformsTo('http://example.org/p')", conforms_to=lambda node, url: node.type_name == "Patient") == [
        True
    ]


def test_the_clock_is_an_argument_and_stands_still() -> None:
    now = datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=UTC)
    assert value("now().toString()", now=now) == ["2026-11-22T12:30:15.123Z"]
    assert value("today() | timeOfDay()", now=now) == ["2026-11-22", "12:30:15.123"]
    assert value("now() = now()") == [True]


def test_truth() -> None:
    def truth(text: str) -> bool:
        return compile_expression(text).is_true(PATIENT)

    assert truth("name.exists()")
    assert truth("'text'")
    assert not truth("{}")
    assert not truth("name.empty()")
    with pytest.raises(FhirPathError):
        truth("name.given")


def test_computed_values_leave_as_json() -> None:
    assert value("@2015-02-04T14:34:28Z") == ["2015-02-04T14:34:28Z"]
    assert value("4.5 'mg'") == [
        {"value": Decimal("4.5"), "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}
    ]
    assert value("2 weeks") == [{"value": Decimal(2), "unit": "weeks"}]


def test_decimals_keep_their_digits() -> None:
    data = {**OBSERVATION, "valueQuantity": {"value": Decimal("1.0600")}}
    assert value("value.value.precision()", data) == [4]
    assert value("value.value.lowBoundary()", data) == [Decimal("1.05995000")]
    assert value("0.1 + 0.2 = 0.3") == [True]
    assert value("value.value + 0.1", {**OBSERVATION, "valueQuantity": {"value": 0.2}}) == [Decimal("0.3")]


@pytest.mark.parametrize(
    "text",
    [
        "Patient.nothing",
        "name.given1",
        "Observation.status",
        "multipleBirthInteger",
        "children().first()",
        "descendants()[0]",
        "(multipleBirth as Quantity).nothing",
        "name as HumanName",
        "iif('x', 1, 2)",
    ],
)
def test_strict_mode_refuses_what_lenient_mode_answers(text: str) -> None:
    value(text)
    with pytest.raises(FhirPathError):
        compile_expression(text, strict=True).nodes(PATIENT)


@pytest.mark.parametrize(
    "text",
    [
        "name.given + 'x'",
        "name.given.single()",
        "birthDate > 5",
        "name > name",
        "1 + 'x'",
        "'a' - 'b'",
        "name.given.substring(0)",
        "name.startsWith('x')",
        "name['x']",
        "'x'.toInteger(1)",
        "-'x'",
        "name.given.not()",
        "$total",
        "('a' | true).allTrue()",
        "conformsTo('http://example.org/unknown')",
        "@2020 + 1 'cm'",
        "'x'.matches('(')",
        "1.round(-1)",
        "(1).skip('x')",
    ],
)
def test_what_cannot_be_computed_is_an_error(text: str) -> None:
    with pytest.raises(FhirPathError):
        value(text)


def test_types_that_r4_does_not_have_are_walked_by_name() -> None:
    assert value("a.b", {"a": [{"b": 1}, {"b": True}]}) == [1, True]
    assert value("a.b is integer", {"a": {"b": 1}}) == [True]


def test_expressions_are_kept() -> None:
    assert compile_expression("name.given") is compile_expression("name.given")
