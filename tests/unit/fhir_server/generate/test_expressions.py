"""FHIRPath of search parameters to typed paths."""

from __future__ import annotations

import pytest

from fhir_server.generate.definitions import Definitions, Element
from fhir_server.generate.expressions import Branch, UnknownExpressionError, branches_of, split_branches

ELEMENTS = {
    "Thing": {
        "value[x]": Element("value[x]", ["Quantity", "CodeableConcept"]),
        "subject": Element("subject", ["Reference"]),
        "telecom": Element("telecom", ["ContactPoint"]),
        "part": Element("part", ["Thing.part"]),
        "deceased[x]": Element("deceased[x]", ["boolean", "dateTime"]),
    },
    "Thing.part": {"code": Element("code", ["CodeableConcept"])},
    "CodeableConcept": {"text": Element("text", ["string"])},
    "Extension": {"value[x]": Element("value[x]", ["string", "Coding"])},
}
DEFINITIONS = Definitions("1", ELEMENTS, ["Thing"], [], {}, {}, {})


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("subject.where(resolve() is Patient)", "reference", [Branch("subject", "subject", "Reference", "Patient")]),
        ("value.as(Quantity)", "quantity", [Branch("value", "valueQuantity", "Quantity")]),
        ("value.ofType(CodeableConcept).text", "string", [Branch("value.text", "valueCodeableConcept.text", "string")]),
        ("value", "token", [Branch("value", "valueCodeableConcept", "CodeableConcept")]),
        ("part.code", "token", [Branch("part.code", "part.code", "CodeableConcept")]),
        (
            "telecom.where(system='email')",
            "token",
            [Branch("telecom[system=email]", "telecom[system=email]", "ContactPoint")],
        ),
        (
            "extension('http://e.org')",
            "string",
            [Branch("extension[url=http://e.org]", "extension[url=http://e.org].valueString", "string")],
        ),
    ],
)
def test_branches(text: str, kind: str, expected: list[Branch]) -> None:
    assert branches_of(DEFINITIONS, "Thing", text, kind) == expected


def test_existence_is_asked_of_every_type_of_the_choice() -> None:
    found = branches_of(DEFINITIONS, "Thing", "deceased.exists() and Thing.deceased != false", "token")
    assert [(b.identity, b.path) for b in found] == [
        ("deceased#true", "deceasedBoolean"),
        ("deceased#true", "deceasedDateTime"),
    ]


def test_unknown_forms_are_errors() -> None:
    for text in ("nonsense", "subject.%x", "part.code.text"):
        with pytest.raises(UnknownExpressionError):
            branches_of(DEFINITIONS, "Thing", text, "date")


def test_unions_and_casts_are_split() -> None:
    assert split_branches("A.b | (A.c as Quantity) | A.d as Range") == ["A.b", "A.c.as(Quantity)", "A.d.as(Range)"]
