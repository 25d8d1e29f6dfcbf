"""FHIR XML: what it looks like, what it refuses, and that JSON → XML → JSON changes nothing."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from lxml import etree

from fhir_server.formats.xml import to_json, to_xml
from foramen.kernel.errors import InteropError

HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
NS = 'xmlns="http://hl7.org/fhir"'


def xml(text: str) -> Any:
    return json.loads(to_json(text.encode(), 64), parse_float=lambda t: ("float", t))


def written(resource: dict[str, Any] | bytes) -> str:
    body = resource if isinstance(resource, bytes) else orjson.dumps(resource)
    return to_xml(body).decode().removeprefix(HEAD)


def test_elements_come_in_the_order_of_the_definition() -> None:
    patient = {"birthDate": "1980-02-29", "active": True, "id": "p", "resourceType": "Patient"}
    assert written(patient) == (
        f'<Patient {NS}><id value="p"/><active value="true"/><birthDate value="1980-02-29"/></Patient>'
    )


def test_ids_and_urls_are_attributes_and_primitives_carry_extensions() -> None:
    patient = {
        "resourceType": "Patient",
        "extension": [{"url": "urn:a", "valueDecimal": 0}],
        "name": [
            {"id": "n", "given": ["A", None], "_given": [None, {"extension": [{"url": "urn:b", "valueCode": "c"}]}]}
        ],
        "birthDate": "1980",
        "_birthDate": {"id": "b"},
    }
    text = written(patient)
    assert text == (
        f'<Patient {NS}><extension url="urn:a"><valueDecimal value="0"/></extension>'
        '<name id="n"><given value="A"/><given><extension url="urn:b"><valueCode value="c"/></extension></given></name>'
        '<birthDate value="1980" id="b"/></Patient>'
    )
    assert orjson.loads(to_json(text.encode(), 64)) == patient


@pytest.mark.parametrize("number", ["1.00", "0.10", "1e2", "-0.0", "1E-22", "123456789.123456789123456789"])
def test_decimals_keep_their_text(number: str) -> None:
    body = f'{{"resourceType":"Observation","valueQuantity":{{"value":{number}}}}}'.encode()
    text = to_xml(body)
    assert f'<value value="{number}"/>'.encode() in text
    assert to_json(text, 64) == body


def test_strings_keep_every_character() -> None:
    value = "a<b>&\"'\n\r\t  é 漢 \U0001f600 "
    body = orjson.dumps({"resourceType": "Patient", "name": [{"text": value}]})
    assert orjson.loads(to_json(to_xml(body), 64))["name"][0]["text"] == value


def test_a_control_character_cannot_be_written() -> None:
    with pytest.raises(InteropError) as caught:
        to_xml(b'{"resourceType":"Patient","name":[{"text":"a\\u0001"}]}')
    assert caught.value.status == 406


def test_contained_resources_and_bundles() -> None:
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": {"resourceType": "Patient", "contained": [{"resourceType": "Device", "id": "d"}]}}],
    }
    text = written(bundle)
    assert "<entry><resource><Patient><contained><Device><id" in text
    assert orjson.loads(to_json(text.encode(), 64)) == bundle


def test_the_narrative_is_xhtml_in_xml_and_text_in_json() -> None:
    div = '<div xmlns="http://www.w3.org/1999/xhtml"><p title="x">a &amp; b<br/>c</p><!-- c --></div>'
    body = orjson.dumps({"resourceType": "Patient", "text": {"status": "generated", "div": div}})
    assert div in to_xml(body).decode()
    assert orjson.loads(to_json(to_xml(body), 64))["text"]["div"] == div


@pytest.mark.parametrize(
    "div",
    ["<div>no namespace</div>", '<div xmlns="http://www.w3.org/1999/xhtml">a&nbsp;b&eacute;</div>', "<p>x", "x < y"],
)
def test_other_narratives_still_make_well_formed_xml(div: str) -> None:
    body = orjson.dumps({"resourceType": "Patient", "text": {"status": "generated", "div": div}})
    root = etree.fromstring(to_xml(body))
    assert root[0][1].tag == "{http://www.w3.org/1999/xhtml}div"


def test_pretty_text_means_the_same() -> None:
    body = orjson.dumps(
        {
            "resourceType": "Patient",
            "text": {"status": "empty", "div": '<div xmlns="http://www.w3.org/1999/xhtml"> a <b>b</b></div>'},
            "name": [{"given": ["A"]}],
        }
    )
    pretty = to_xml(body, pretty=True)
    assert b"\n  <name>\n    <given" in pretty
    assert orjson.loads(to_json(pretty, 64)) == orjson.loads(body)


REFUSED = [
    ("a document type", f'<!DOCTYPE p [<!ENTITY a "b">]><Patient {NS}><id value="&a;"/></Patient>'),
    ("an external entity", f'<!DOCTYPE p SYSTEM "file:///etc/passwd"><Patient {NS}/>'),
    ("an undefined entity", f'<Patient {NS}><id value="&nbsp;"/></Patient>'),
    ("not well formed", f"<Patient {NS}><id></Patient>"),
    ("not XML", '{"resourceType":"Patient"}'),
    ("empty", ""),
    ("no namespace", "<Patient/>"),
    ("another namespace", '<Patient xmlns="urn:x"/>'),
    ("not a resource", f"<HumanName {NS}/>"),
    ("an element of another namespace", f'<Patient {NS} xmlns:x="urn:x"><x:id value="1"/></Patient>'),
    ("text between elements", f"<Patient {NS}>Anna</Patient>"),
    ("an unknown attribute", f'<Patient {NS} colour="red"/>'),
    ("an element twice", f'<Patient {NS}><active value="true"/><active value="false"/></Patient>'),
    ("no value", f"<Patient {NS}><birthDate/></Patient>"),
    ("two resources contained in one", f"<Patient {NS}><contained><Device/><Device/></contained></Patient>"),
    ("too deep", f"<Patient {NS}>" + '<extension url="a">' * 70 + "</extension>" * 70 + "</Patient>"),
    ("another encoding", f'<?xml version="1.0" encoding="UTF-16"?><Patient {NS}/>'),
]


@pytest.mark.parametrize("text", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refuses(text: str) -> None:
    with pytest.raises(InteropError) as caught:
        xml(text)
    assert caught.value.status == 400


def test_invalid_utf8_is_refused() -> None:
    with pytest.raises(InteropError):
        to_json(f'<Patient {NS}><id value="'.encode() + b"\xff" + b'"/></Patient>', 64)


def test_wrong_values_and_unknown_elements_go_to_the_validation() -> None:
    text = f'<Patient {NS}><colour value="red"/><active value="yes"/><multipleBirthInteger value="two"/></Patient>'
    assert xml(text) == {"resourceType": "Patient", "colour": "red", "active": "yes", "multipleBirthInteger": "two"}


def test_a_fault_says_where_without_the_value() -> None:
    with pytest.raises(InteropError) as caught:
        xml(f'<Patient {NS}><name><family value="a"/><family value="Geheim"/></name></Patient>')
    issue = caught.value.issues[0]
    assert issue.expression == ("Patient.name.family",)
    assert "Geheim" not in issue.diagnostics


def test_comments_schema_location_and_prefixes_are_harmless() -> None:
    text = (
        '<f:Patient xmlns:f="http://hl7.org/fhir" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xsi:schemaLocation="a b"><!-- c --><f:id value="p"/><?pi x?></f:Patient>'
    )
    assert xml(text) == {"resourceType": "Patient", "id": "p"}
