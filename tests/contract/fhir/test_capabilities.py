"""The CapabilityStatement says what is served, all of it, and nothing else.

https://hl7.org/fhir/R4/capabilitystatement.html
"""

from __future__ import annotations

from typing import Any

import pytest

from fhir_server.access.policy import Access
from fhir_server.model.resource import parse_resource
from fhir_server.model.validation import issues_of
from fhir_server.routes import ROUTES
from fhir_server.routing import find
from fhir_server.search.parse import SearchParser
from fhir_server.settings import FhirSettings
from foramen.kernel.access_context import AccessContext, parse_scopes
from foramen.kernel.errors import InteropError
from tests.contract.fhir.api import EVERYTHING, Api, observation, patient_resource, refused

_METHODS = {
    "read": ("GET", "{type}/{id}"),
    "vread": ("GET", "{type}/{id}/_history/1"),
    "update": ("PUT", "{type}/{id}"),
    "patch": ("PATCH", "{type}/{id}"),
    "delete": ("DELETE", "{type}/{id}"),
    "history-instance": ("GET", "{type}/{id}/_history"),
    "history-type": ("GET", "{type}/_history"),
    "create": ("POST", "{type}"),
    "search-type": ("GET", "{type}"),
    "transaction": ("POST", ""),
    "batch": ("POST", ""),
    "history-system": ("GET", "_history"),
    "search-system": ("GET", ""),
}
_VALUES = {
    "number": "1",
    "date": "2026-01-01",
    "string": "x",
    "token": "x",
    "reference": "Patient/x",
    "quantity": "1",
    "uri": "http://x",
    "special": "x",
}
_SPECIAL = {"near": "48.1|11.5|10|km", "_filter": "_id eq x"}
_BOOLEAN = {"Patient:deceased", "Patient:birthOrderBoolean"}


@pytest.fixture
async def statement(module_api: Api) -> dict[str, Any]:
    response = await module_api.http.get("/fhir/metadata")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


async def test_it_is_valid(module_api: Api, statement: dict[str, Any]):
    body = (await module_api.http.get("/fhir/metadata")).content
    assert issues_of(parse_resource(body, 64)) == []
    assert statement["fhirVersion"] == "4.0.1"
    created = await module_api.post("/fhir/CapabilityStatement", body)
    assert created.status_code == 201, created.text


async def test_every_interaction_of_every_type_has_a_route(statement: dict[str, Any]):
    (rest,) = statement["rest"]
    assert len(rest["resource"]) == 145  # Of R4's 146 types Parameters cannot be stored.
    for resource in rest["resource"]:
        for interaction in resource["interaction"]:
            method, path = _METHODS[interaction["code"]]
            find(path.format(type=resource["type"], id="x").split("/"), method)
        for operation in resource.get("operation", []):
            assert operation["definition"].startswith("http")
            assert _operation_routes(resource["type"], operation["name"]), operation
    for interaction in rest["interaction"]:
        method, path = _METHODS[interaction["code"]]
        find([part for part in path.split("/") if part], method)


def _operation_routes(resource_type: str, name: str) -> list[Any]:
    owners = (resource_type, "{type}")
    return [route for route in ROUTES if route.operation == name and route.path.split("/")[0] in owners]


async def test_every_route_is_told(statement: dict[str, Any]):
    (rest,) = statement["rest"]
    by_type = {resource["type"]: resource for resource in rest["resource"]}
    system = {item["code"] for item in rest["interaction"]}
    told = {item["name"] for item in rest.get("operation", [])}
    for route in ROUTES:
        owner = route.path.partition("/")[0]
        sample = by_type["Patient" if owner in ("{type}", "") else owner] if route.level == "type" else None
        if route.capability:
            codes = system if sample is None else {item["code"] for item in sample["interaction"]}
            assert route.capability in codes, route
        elif route.operation and route.definition:
            names = told if sample is None else {item["name"] for item in sample["operation"]}
            assert route.operation in names, route
    methods = {route.method for route in ROUTES}
    assert ("patchFormat" in statement) == ("PATCH" in methods)


async def test_every_interaction_answers(api: Api, statement: dict[str, Any]):
    await api.put_ok({**patient_resource(), "id": "ca"})
    await api.put_ok({**observation("Patient/ca"), "id": "ca"})
    for name, body in (("Patient", patient_resource()), ("Observation", observation("Patient/ca"))):
        told = next(item for item in statement["rest"][0]["resource"] if item["type"] == name)
        codes = [item["code"] for item in told["interaction"]]
        for code in sorted(codes, key=lambda code: code == "delete"):
            method, path = _METHODS[code]
            sent = {"PUT": {**body, "id": "ca"}, "POST": body, "PATCH": []}.get(method, b"")
            headers = {"content_type": "application/json-patch+json"} if method == "PATCH" else {}
            response = await api.send(method, f"/fhir/{path.format(type=name, id='ca')}", sent, **headers)
            assert response.status_code in (200, 201, 204), (code, response.text)
    for item in statement["rest"][0]["interaction"]:
        method, path = _METHODS[item["code"]]
        kind = item["code"] if item["code"] in ("batch", "transaction") else "batch"
        body = {"resourceType": "Bundle", "type": kind} if method == "POST" else b""
        response = await api.send(method, f"/fhir/{path}" if path else "/fhir?_type=Patient", body)
        assert response.status_code == 200, (item, response.text)


async def test_every_operation_answers(api: Api, statement: dict[str, Any]):
    await api.put_ok({**patient_resource(), "id": "ca"})
    await api.put_ok({"resourceType": "Group", "id": "ca", "type": "person", "actual": True})
    admin = api.as_(f"{EVERYTHING} foramen/admin")
    for route in ROUTES:
        if not (route.operation and route.definition):
            continue
        path = route.path.format(type="Patient", id="ca", version="1", member="Observation")
        body = {"resourceType": "Parameters"} if route.method != "GET" else b""
        response = await admin.send(route.method, f"/fhir/{path}", body)
        text = response.text
        assert response.status_code != 405, (route.path, text)
        assert response.status_code < 500, (route.path, text)
        assert "nothing at this URL" not in text, route.path


async def test_every_search_parameter_is_taken(statement: dict[str, Any]):
    access, limits = Access(AccessContext("test", "", parse_scopes(EVERYTHING))), FhirSettings()
    refused_names, count = [], 0
    for resource in statement["rest"][0]["resource"]:
        for item in resource["searchParam"]:
            name = item["name"]
            count += 1
            if item["type"] == "composite":
                continue
            of_kind = "true" if f"{resource['type']}:{name}" in _BOOLEAN else _VALUES[item["type"]]
            value = _SPECIAL.get(name, of_kind)
            parser = SearchParser(limits, "http://127.0.0.1:8000/fhir", access)
            try:
                assert parser.parse(resource["type"], [(name, value)], strict=True).unknown == []
            except InteropError as exc:
                refused_names.append((resource["type"], name, exc.message))
        for text in resource.get("searchInclude", []):
            assert text == "*" or text.split(":")[0] == resource["type"]
            parser = SearchParser(limits, "http://127.0.0.1:8000/fhir", access)
            parser.parse(resource["type"], [("_include", text)], strict=True)
    assert refused_names == []
    assert count > 2400


async def test_parameters_name_their_definitions(statement: dict[str, Any]):
    missing = [
        (resource["type"], item["name"])
        for resource in statement["rest"][0]["resource"]
        for item in resource["searchParam"]
        if "definition" not in item and item["name"] not in ("_list", "_filter")  # R4 defines these in words only.
    ]
    assert len(missing) < 60, missing
    patient = next(item for item in statement["rest"][0]["resource"] if item["type"] == "Patient")
    birthdate = next(item for item in patient["searchParam"] if item["name"] == "birthdate")
    assert birthdate["definition"] == "http://hl7.org/fhir/SearchParameter/individual-birthdate"
    assert birthdate["documentation"]


async def test_modes(module_api: Api):
    http = module_api.http
    normative = (await http.get("/fhir/metadata?mode=normative")).json()
    assert {item["type"] for item in normative["rest"][0]["resource"]} >= {"Patient", "Observation", "ValueSet"}
    assert "Procedure" not in {item["type"] for item in normative["rest"][0]["resource"]}
    terminology = await http.get("/fhir/metadata?mode=terminology")
    assert terminology.json()["resourceType"] == "TerminologyCapabilities"
    assert issues_of(parse_resource(terminology.content, 64)) == []
    refused(await http.get("/fhir/metadata?mode=everything"), 400, "value")


async def test_audit_events_can_only_be_added_and_read(statement: dict[str, Any]):
    told = next(item for item in statement["rest"][0]["resource"] if item["type"] == "AuditEvent")
    codes = {item["code"] for item in told["interaction"]}
    assert {"create", "read", "search-type"} <= codes
    assert not codes & {"update", "patch", "delete"}
    assert told["conditionalDelete"] == "not-supported"
    assert not told["updateCreate"]


_COMPARTMENTS = {
    # https://hl7.org/fhir/R4/compartmentdefinition.html#bnr: the canonical URLs of R4's five definitions.
    "http://hl7.org/fhir/CompartmentDefinition/device": "Device",
    "http://hl7.org/fhir/CompartmentDefinition/encounter": "Encounter",
    "http://hl7.org/fhir/CompartmentDefinition/patient": "Patient",
    "http://hl7.org/fhir/CompartmentDefinition/practitioner": "Practitioner",
    "http://hl7.org/fhir/CompartmentDefinition/relatedPerson": "RelatedPerson",
}


async def test_compartments_are_those_that_can_be_searched(module_api: Api, statement: dict[str, Any]):
    told = statement["rest"][0]["compartment"]
    assert sorted(told) == sorted(_COMPARTMENTS)
    for resource_type in (item["type"] for item in statement["rest"][0]["resource"]):
        answer = await module_api.get(f"/fhir/{resource_type}/x/*?_count=1")
        if resource_type in _COMPARTMENTS.values():
            assert answer.status_code == 200, answer.text
        else:
            refused(answer, 404, "not-found")
