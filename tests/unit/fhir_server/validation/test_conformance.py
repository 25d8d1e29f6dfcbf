"""The parts of profile checking that need no server: slicing, discriminators, versions, limits of what is said."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.packages.versions import version_key
from fhir_server.profiles.shipped import base_keys, r4_elements
from fhir_server.validation.conformance import Conformance
from fhir_server.validation.patterns import contains, in_range
from fhir_server.validation.profile import Profile, compile_profile
from fhir_server.validation.snapshot import generate_snapshot
from foramen.kernel.errors import InvalidResourceError

URL = "urn:test:profile"


def profile(resource_type: str, *differential: dict[str, Any]) -> Profile:
    base = r4_elements(resource_type)
    assert base is not None
    elements = [{"path": _path(element["id"]), **element} for element in differential]
    snapshot = {"element": generate_snapshot(elements, base, r4_elements)}
    structure = {"url": URL, "type": resource_type, "derivation": "constraint", "snapshot": snapshot}
    return compile_profile(structure, base_keys())


def _path(identity: str) -> str:
    return ".".join(part.partition(":")[0] for part in identity.split("."))


def issues(data: dict[str, Any], checked: Profile) -> set[tuple[str, str, str]]:
    conformance = Conformance(data, {URL: checked})
    conformance.check(checked)
    return {(issue.severity, issue.issue_code, issue.expression[0]) for issue in conformance.issues}


def sliced(path: str, *discriminators: tuple[str, str], rules: str = "open", ordered: bool = False) -> dict[str, Any]:
    found = [{"type": kind, "path": where} for kind, where in discriminators]
    return {"id": path, "slicing": {"discriminator": found, "rules": rules, "ordered": ordered}}


def patient(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", **more}


def test_slices_by_existence() -> None:
    checked = profile(
        "Patient",
        sliced("Patient.telecom", ("exists", "period")),
        {"id": "Patient.telecom:dated", "sliceName": "dated", "max": "1"},
        {"id": "Patient.telecom:dated.period", "min": 1},
    )
    dated = {"system": "phone", "value": "1", "period": {"start": "2020"}}
    assert issues(patient(telecom=[dated, {"system": "phone", "value": "2"}]), checked) == set()
    assert issues(patient(telecom=[dated, dated]), checked) == {("error", "structure", "Patient.telecom")}


def test_slices_by_type_through_resolve() -> None:
    organization = [{"code": "Reference", "targetProfile": ["http://hl7.org/fhir/StructureDefinition/Organization"]}]
    checked = profile(
        "Patient",
        sliced("Patient.generalPractitioner", ("type", "resolve()")),
        {"id": "Patient.generalPractitioner:house", "sliceName": "house", "min": 1, "max": "1", "type": organization},
    )
    house, person = {"reference": "Organization/1"}, {"reference": "Practitioner/1"}
    assert issues(patient(generalPractitioner=[person, house]), checked) == set()
    assert issues(patient(generalPractitioner=[person]), checked) == {
        ("error", "required", "Patient.generalPractitioner")
    }
    contained = {
        "contained": [{"resourceType": "Organization", "id": "o"}],
        "generalPractitioner": [{"reference": "#o"}],
    }
    assert issues(patient(**contained), checked) == set()


def test_extension_slices_by_url_and_paths_through_extensions() -> None:
    one = "http://example.org/one"
    checked = profile(
        "Patient",
        sliced("Patient.extension", ("value", "url")),
        {
            "id": "Patient.extension:one",
            "sliceName": "one",
            "min": 1,
            "max": "1",
            "type": [{"code": "Extension", "profile": [one]}],
        },
    )
    found = {"url": one, "valueString": "x"}
    assert issues(patient(extension=[found]), checked) == set()
    assert issues(patient(extension=[{**found, "url": "http://example.org/two"}]), checked) == {
        ("error", "required", "Patient.extension")
    }


def test_open_at_end_and_order() -> None:
    def checked(**rules: Any) -> Profile:
        return profile(
            "Patient",
            sliced("Patient.identifier", ("value", "system"), **rules),
            {"id": "Patient.identifier:a", "sliceName": "a"},
            {"id": "Patient.identifier:a.system", "fixedUri": "urn:a"},
            {"id": "Patient.identifier:b", "sliceName": "b"},
            {"id": "Patient.identifier:b.system", "fixedUri": "urn:b"},
        )

    a, b, c = ({"system": f"urn:{name}", "value": "1"} for name in "abc")
    fault = {("error", "structure", "Patient.identifier")}
    assert issues(patient(identifier=[a, b, c]), checked(rules="openAtEnd")) == set()
    assert issues(patient(identifier=[a, c, b]), checked(rules="openAtEnd")) == fault
    assert issues(patient(identifier=[b, a]), checked(ordered=True)) == fault
    assert issues(patient(identifier=[b, a]), checked()) == set()
    assert issues(patient(identifier=[a, c]), checked(rules="closed")) == {
        ("error", "structure", "Patient.identifier[1]")
    }


def test_what_cannot_be_decided_is_said_and_refuses_nothing() -> None:
    checked = profile(
        "Patient",
        sliced("Patient.identifier", ("value", "nonsense()")),
        {"id": "Patient.identifier:a", "sliceName": "a", "min": 1},
    )
    found = issues(patient(identifier=[{"value": "1"}]), checked)
    assert {severity for severity, _, _ in found} == {"information"}


def test_content_references_and_nested_backbones() -> None:
    checked = profile("Questionnaire", {"id": "Questionnaire.item.text", "min": 1})
    item = {"linkId": "1", "type": "group", "text": "x"}
    inner = {**item, "item": [{"linkId": "2", "type": "display"}]}
    sent = {"resourceType": "Questionnaire", "status": "draft", "item": [inner]}
    assert issues(sent, checked) == {("error", "required", "Questionnaire.item[0].item[0].text")}


def test_constraints_of_a_profile_by_severity() -> None:
    rule = {"severity": "warning", "human": "has a name", "expression": "name.exists()", "key": "t-1"}
    broken = {"severity": "error", "human": "?", "expression": "name.nonsense(", "key": "t-2"}
    checked = profile("Patient", {"id": "Patient", "constraint": [rule, broken]})
    assert issues(patient(), checked) == {
        ("warning", "invariant", "Patient"),
        ("information", "not-supported", "Patient"),
    }


def test_primitive_with_extension_only_counts_as_there() -> None:
    checked = profile("Patient", {"id": "Patient.birthDate", "min": 1, "maxValueDate": "2000-01-01"})
    reason = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
    assert issues(patient(_birthDate={"extension": [reason]}), checked) == set()
    assert issues(patient(), checked) == {("error", "required", "Patient.birthDate")}


@pytest.mark.parametrize(
    ("value", "pattern", "fits"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": [1, 2]}, {"a": [2]}, True),
        ({"a": [1]}, {"a": [2]}, False),
        ({"a": {"b": [{"c": 1, "d": 2}]}}, {"a": {"b": [{"d": 2}]}}, True),
        (True, 1, False),
        ("x", "x", True),
    ],
)
def test_patterns(value: Any, pattern: Any, fits: bool) -> None:
    assert contains(value, pattern) is fits


@pytest.mark.parametrize(
    ("value", "least", "most", "inside"),
    [
        (5, 1, 5, True),
        (6, 1, 5, False),
        ("2020", "2020-05-01", None, True),
        ("2019", "2020-05-01", None, False),
        ({"value": 5, "code": "mm"}, None, {"value": 4, "code": "mm"}, False),
        ({"value": 5, "code": "cm"}, None, {"value": 4, "code": "mm"}, True),
    ],
)
def test_ranges(value: Any, least: Any, most: Any, inside: bool) -> None:
    assert in_range(value, least, most) is inside


def test_versions_sort_by_value() -> None:
    sent = ["1.0.0", "0.9.0", "1.0.0-ballot", "1.10.0", "1.2.0", "2.0", "", "1.0.0-ballot2"]
    assert sorted(sent, key=version_key) == [
        "",
        "0.9.0",
        "1.0.0-ballot",
        "1.0.0-ballot2",
        "1.0.0",
        "1.2.0",
        "1.10.0",
        "2.0",
    ]


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fhir_server.validation.conformance._MAX_WORK", 5)
    with pytest.raises(InvalidResourceError) as caught:
        issues(patient(name=[{"family": "x"}] * 9), profile("Patient", {"id": "Patient.name", "min": 1}))
    assert caught.value.issue_code == "too-costly"
