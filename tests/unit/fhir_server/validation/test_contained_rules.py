"""dom-3 and ref-1, decided natively: the same answer as their FHIRPath expressions, and in linear time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fhir_server.fhirpath.node import Node, root_node
from fhir_server.validation.invariants import Rule, invariant_issues, plan_of

_ORGANIZATION = {"resourceType": "Organization", "id": "o", "name": "SYNTHETIC"}
_REFERRING = {**_ORGANIZATION, "partOf": {"reference": "#"}}


def _patient(*contained: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "contained": list(contained), **more}


def _extension(name: str, value: str) -> list[dict[str, Any]]:
    return [{"url": "http://example.com/x", name: value}]


_CASES = {
    "unreferenced": _patient(_ORGANIZATION),
    "referenced": _patient(_ORGANIZATION, managingOrganization={"reference": "#o"}),
    "absolute": _patient(_ORGANIZATION, managingOrganization={"reference": "Organization/o"}),
    "one of two": _patient(_ORGANIZATION, {**_ORGANIZATION, "id": "p"}, managingOrganization={"reference": "#o"}),
    "by another contained": _patient(_ORGANIZATION, {**_REFERRING, "id": "p", "endpoint": [{"reference": "#o"}]}),
    "refers to its container": _patient(_REFERRING),
    "no id": _patient({"resourceType": "Organization", "name": "SYNTHETIC"}),
    "canonical": _patient(_ORGANIZATION, extension=_extension("valueCanonical", "#o")),
    "uri": _patient(_ORGANIZATION, extension=_extension("valueUri", "#o")),
    "url": _patient(_ORGANIZATION, extension=_extension("valueUrl", "#o")),
    "oid": _patient(_ORGANIZATION, extension=_extension("valueOid", "#o")),
    "string": _patient(_ORGANIZATION, extension=_extension("valueString", "#o")),
    "url of an extension": _patient(_ORGANIZATION, extension=[{"url": "#o", "valueString": "x"}]),
    "container by canonical": _patient({**_ORGANIZATION, "extension": _extension("valueCanonical", "#")}),
    "container by uri": _patient({**_ORGANIZATION, "extension": _extension("valueUri", "#")}),
    "dangling": _patient(_ORGANIZATION, managingOrganization={"reference": "#q"}),
    "dangling inside": _patient({**_REFERRING, "endpoint": [{"reference": "#q"}]}),
    "inside to a sibling": _patient(_REFERRING, {**_REFERRING, "id": "p", "endpoint": [{"reference": "#o"}]}),
    "nothing contained": {"resourceType": "Patient", "managingOrganization": {"reference": "#q"}},
    "reference with extensions only": _patient(
        _ORGANIZATION, managingOrganization={"_reference": {"extension": _extension("valueUri", "#o")}}
    ),
}


def _rule(type_name: str, key: str) -> Rule:
    plan = plan_of(type_name)
    assert plan is not None
    return next(rule for rule in plan.rules if rule.key == key)


@pytest.mark.parametrize("name", list(_CASES))
def test_as_the_expression_says(name: str) -> None:
    data = _CASES[name]
    root = root_node(data, "Patient")
    dom = _rule("Patient", "dom-3")
    assert dom.is_met(root, root, root) == dom.expression.is_true(root, resource=root, root_resource=root)
    ref = _rule("Reference", "ref-1")
    references: list[Any] = [data.get("managingOrganization")]
    for inner in data.get("contained", []):
        references += [inner.get("partOf"), *inner.get("endpoint", [])]
    for reference in filter(None, references):
        node = Node(reference, "Reference")
        expected = ref.expression.is_true(node, resource=root, root_resource=root)
        assert ref.is_met(node, root, root) == expected


@pytest.mark.parametrize("referenced", [True, False])
def test_the_cost_grows_as_the_resource_does(referenced: bool) -> None:
    count = 20_000
    data = _patient(*[{**_REFERRING, "id": f"c{n}", "endpoint": [{"reference": f"#c{n}"}]} for n in range(count)])
    if referenced:
        data["generalPractitioner"] = [{"reference": f"#c{n}"} for n in range(count)]
    began = time.process_time()
    assert not invariant_issues(data, "Patient")
    plain = [{"resourceType": "Organization", "id": f"c{n}", "name": "SYNTHETIC"} for n in range(count)]
    found = invariant_issues(_patient(*plain), "Patient")
    assert [issue.diagnostics[:5] for issue in found] == ["dom-3"]
    assert time.process_time() - began < 15
