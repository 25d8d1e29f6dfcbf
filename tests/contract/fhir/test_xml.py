"""XML at the API, and the official examples through XML and back."""
# ruff: noqa: T201 - counts are printed on purpose

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from fhir.resources.R4B import get_fhir_model_class
from lxml import etree

from fhir_server.formats.xml import to_json, to_xml
from tests.contract.fhir.api import Api, entry, refused
from tests.contract.fhir.test_official_examples import exact, examples

XML = "application/fhir+xml"
NS = 'xmlns="http://hl7.org/fhir"'
PATIENT = (
    f'<?xml version="1.0" encoding="UTF-8"?><Patient {NS}><id value="xml-1"/>'
    '<text><status value="generated"/><div xmlns="http://www.w3.org/1999/xhtml"><p>Anna</p></div></text>'
    '<extension url="http://example.org/x"><valueDecimal value="1.00"/></extension>'
    '<name><given value="Anna"/><given value="Eva"><extension url="urn:a"><valueCode value="b"/></extension></given>'
    '</name><gender value="female"/></Patient>'
).encode()


def comparable(value: Any) -> Any:
    """Narratives by their canonical XML; everything else, numbers included, as it is written."""
    if isinstance(value, dict):
        return {
            key: etree.tostring(etree.fromstring(item), method="c14n") if key == "div" else comparable(item)
            for key, item in value.items()
        }
    return [comparable(item) for item in value] if isinstance(value, list) else value


@pytest.mark.fhir_definitions
def test_every_official_example_survives_xml(capsys: pytest.CaptureFixture[str]) -> None:
    total, identical, different = 0, 0, []
    for name, body in examples():
        total += 1
        before, after = exact(body), exact(to_json(to_xml(body), 100))
        if before == after:
            identical += 1
        elif comparable(before) != comparable(after):
            different.append(name)
    with capsys.disabled():
        print(
            f"\nofficial examples through XML: {total - len(different)} of {total} equal, {identical} to the character"
        )
    assert different == []
    assert total > 5000


@pytest.mark.fhir_definitions
def test_another_implementation_reads_our_xml_alike() -> None:
    """`fhir.resources` is read with our XML; what it finds there is what it finds in the JSON."""
    compared = 0
    for name, body in examples()[::60]:
        data = orjson.loads(body)
        if data["resourceType"] in ("Bundle", "StructureDefinition", "ValueSet", "SearchParameter"):
            continue
        try:
            model = get_fhir_model_class(data["resourceType"])
            from_json = model.model_validate_json(body)
        except Exception:  # noqa: BLE001, S112 - R4B lacks or refuses some of R4
            continue
        from_xml = model.model_validate_xml(to_xml(body))
        left, right = json.loads(from_json.model_dump_json()), json.loads(from_xml.model_dump_json())
        assert _without_ids(left) == _without_ids(right), name
        compared += 1
    assert compared > 20


def _without_ids(value: Any) -> Any:
    """Leave out element ids and narratives: `fhir.resources` reads neither from XML."""
    if isinstance(value, dict):
        return {key: _without_ids(item) for key, item in value.items() if key not in ("id", "div")}
    return [_without_ids(item) for item in value] if isinstance(value, list) else value


async def test_xml_in_json_out_xml_out(module_api: Api) -> None:
    put = await module_api.put("/fhir/Patient/xml-1", PATIENT, content_type=XML, accept=XML)
    assert put.status_code == 201, put.text
    assert put.headers["content-type"].startswith(XML)
    read = await module_api.get("/fhir/Patient/xml-1")
    assert b'"valueDecimal":1.00' in read.content
    data = read.json()
    assert data["name"][0]["_given"] == [None, {"extension": [{"url": "urn:a", "valueCode": "b"}]}]
    again = await module_api.get("/fhir/Patient/xml-1", accept=XML)
    assert b'<valueDecimal value="1.00"/>' in again.content
    assert exact(to_json(again.content, 64)) == exact(read.content)
    put = await module_api.put("/fhir/Patient/xml-1", again.content, content_type="application/xml")
    assert put.status_code == 200


async def test_validation_of_xml_names_the_same_elements(module_api: Api) -> None:
    wrong = f'<Patient {NS}><name><family value="A"/></name><gender value="purple"/><birthDate value="x"/></Patient>'
    outcome = refused(await module_api.post("/fhir/Patient", wrong.encode(), content_type=XML), 422, "value")
    assert {e for issue in outcome["issue"] for e in issue["expression"]} == {"Patient.gender", "Patient.birthDate"}
    unknown = f'<Patient {NS}><colour value="red"/></Patient>'
    refused(await module_api.post("/fhir/Patient", unknown.encode(), content_type=XML), 422, "structure")


@pytest.mark.parametrize(
    "body",
    [
        '<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><Patient {NS}><id value="&b;"/></Patient>',
        '<!DOCTYPE p SYSTEM "http://127.0.0.1:1/x"><Patient {NS}/>',
        "<Patient {NS}><name>",
        "not xml",
        "<Patient {NS}>" + '<extension url="u">' * 5000,
    ],
)
async def test_hostile_xml_is_refused(module_api: Api, body: str) -> None:
    answer = await module_api.post("/fhir/Patient", body.replace("{NS}", NS).encode(), content_type=XML)
    assert answer.status_code == 400, answer.text
    assert answer.json()["issue"][0]["code"] in ("structure", "too-long")


async def test_transaction_in_xml(module_api: Api) -> None:
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [entry("POST", "Patient", {"resourceType": "Patient", "active": True})],
    }
    answer = await module_api.post("/fhir/", to_xml(orjson.dumps(bundle)), content_type=XML, accept=XML)
    assert answer.status_code == 200, answer.text
    assert orjson.loads(to_json(answer.content, 64))["entry"][0]["response"]["status"] == "201 Created"
