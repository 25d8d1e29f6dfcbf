"""Parameters of operations are read by type, and faults name the parameter and never its value."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fhir_server.operations.gathering import Position
from fhir_server.operations.parameters import Parameter, Parameters, read_parameters
from foramen.kernel.errors import InvalidRequestError


def _read(*items: dict[str, Any]) -> Parameters:
    return Parameters(read_parameters(orjson.dumps({"resourceType": "Parameters", "parameter": list(items)}), 64))


def test_getters_of_a_body():
    found = _read(
        {"name": "url", "valueUri": "http://x"},
        {"name": "flag", "valueBoolean": True},
        {"name": "count", "valueInteger": 3},
        {"name": "at", "valueDate": "2026-01"},
        {"name": "type", "valueCode": "A,B"},
        {"name": "type", "valueCode": "C"},
        {"name": "coding", "valueCoding": {"code": "x"}},
        {"name": "inner", "part": [{"name": "deep", "valueString": "y"}]},
    )
    assert found.text("url") == "http://x"
    assert found.boolean("flag") is True
    assert found.boolean("other", default=True) is True
    assert found.integer("count") == 3
    assert found.period("at") == (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    assert found.listed("type") == ["A", "B", "C"]
    assert found.element("coding", "valueCoding") == {"code": "x"}
    assert [part.text("deep") for part in found.parts("inner")] == ["y"]
    assert found.text("none") is None


def test_getters_of_a_query():
    found = Parameters([Parameter("flag", "", "true"), Parameter("count", "", "7"), Parameter("_pretty", "", "true")])
    assert found.boolean("flag")
    assert found.integer("count") == 7
    found.check_known(("flag", "count"))
    with pytest.raises(InvalidRequestError) as caught:
        found.check_known(("flag",))
    assert caught.value.issue_code == "not-supported"


def test_a_resource_keeps_its_bytes():
    body = (
        b'{"resourceType":"Parameters","parameter":[{"name":"resource","resource":{"resourceType":"Basic","x":1.50}}]}'
    )
    resource = Parameters(read_parameters(body, 64)).resource()
    assert resource is not None
    assert resource.body == b'{"resourceType":"Basic","x":1.50}'
    alone = Parameters(read_parameters(b'{"resourceType":"Basic","x":1.50}', 64)).resource()
    assert alone is not None
    assert alone.body == b'{"resourceType":"Basic","x":1.50}'


@pytest.mark.parametrize(
    ("item", "ask"),
    [
        ({"name": "secret", "valueString": "PRIVATE"}, lambda p: p.integer("secret")),
        ({"name": "secret", "valueString": "PRIVATE"}, lambda p: p.boolean("secret")),
        ({"name": "secret", "valueString": "PRIVATE"}, lambda p: p.period("secret")),
        ({"name": "secret", "valueString": "PRIVATE"}, lambda p: p.element("secret", "valueMeta")),
        ({"name": "secret", "valueString": "PRIVATE"}, lambda p: p.resource("secret")),
        ({"name": "secret", "valueString": "PRIVATE"}, lambda p: p.parts("secret")),
        ({"name": "secret", "valueInteger": 1}, lambda p: p.text("secret")),
        ({"name": "secret", "valueInteger": -1}, lambda p: p.integer("secret")),
        ({"name": "secret", "valueBoolean": True}, lambda p: p.integer("secret")),
        ({"name": "secret", "valueInteger": 10**12}, lambda p: p.integer("secret")),
        ({"name": "other", "valueInteger": 1}, lambda p: p.required_text("secret")),
    ],
)
def test_faults(item: dict[str, Any], ask: Any):
    with pytest.raises(InvalidRequestError) as caught:
        ask(_read(item))
    assert "secret" in caught.value.issues[0].expression[0]
    assert "PRIVATE" not in caught.value.message


def test_only_one():
    with pytest.raises(InvalidRequestError):
        _read({"name": "a", "valueString": "1"}, {"name": "a", "valueString": "2"}).text("a")


@pytest.mark.parametrize(
    "text", ["", "Patient", "Patient.!", "Nonsense.AAAAAAAAAAA", "Patient.AAAA", "Patient." + "A" * 9000]
)
def test_damaged_positions(text: str):
    with pytest.raises(InvalidRequestError):
        Position.read(text)


def test_positions_come_back():
    position = Position("Patient", -5, (1, -(2**63)))
    assert Position.read(position.write()) == position
