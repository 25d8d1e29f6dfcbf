"""Whatever comes in, the readers answer with a resource or with one of our errors, never with anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.formats.compression import decompress, preferred
from fhir_server.formats.media_types import parse_media_type
from fhir_server.formats.xml import to_json, to_xml
from fhir_server.patching.exact_json import dump, load
from fhir_server.patching.fhirpath_patch import parse_fhirpath_patch
from fhir_server.patching.json_patch import parse_json_patch
from foramen.kernel.errors import InteropError

PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml"><p>SYNTHETIC</p></div>'},
    "contained": [{"resourceType": "Organization", "id": "o"}],
    "name": [{"given": ["A", "B"], "_given": [None, {"id": "x"}]}],
    "deceasedBoolean": False,
    "multipleBirthInteger": 2,
}
XML = to_xml(orjson.dumps(PATIENT))


def refusal(run: Callable[[], Any]) -> int:
    """Status of the refusal, 0 when there is none; any other exception passes through."""
    try:
        run()
    except InteropError as exc:
        return exc.status
    return 0


@given(
    st.lists(st.tuples(st.integers(0, len(XML)), st.integers(0, 40), st.binary(max_size=20)), min_size=1, max_size=4)
)
def test_damaged_xml(cuts: list[tuple[int, int, bytes]]) -> None:
    body = XML
    for start, length, new in cuts:
        body = body[:start] + new + body[start + length :]
    if refusal(lambda: to_json(body, 64)) not in (400, 413):
        assert isinstance(json.loads(to_json(body, 64))["resourceType"], str)


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    for read in (
        lambda: to_json(body, 64),
        lambda: decompress(body, "gzip", 1000),
        lambda: decompress(body, "zstd", 1000),
        lambda: load(body),
        lambda: parse_json_patch(body, 10),
        lambda: parse_fhirpath_patch(body, 10),
    ):
        assert refusal(read) in (0, 400, 413)


@given(st.text(max_size=60))
def test_any_header(text: str) -> None:
    assert 0 <= parse_media_type(text).quality <= 1
    assert preferred(text.encode("utf-8", "ignore")) in ("", "gzip", "zstd")


POINTERS = st.sampled_from(
    ["", "/name", "/name/0", "/name/0/given", "/name/0/given/-", "/name/0/_given/1", "/x", "/id"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["given", "id"]), inner, max_size=2),
    max_leaves=5,
)
STEPS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": POINTERS},
        optional={"from": POINTERS, "value": VALUES},
    ),
    max_size=6,
)


@given(STEPS)
def test_any_json_patch(steps: list[dict[str, Any]]) -> None:
    def run() -> None:
        dump(parse_json_patch(orjson.dumps(steps), 10).apply(load(orjson.dumps(PATIENT)), "Patient", 5000))

    assert refusal(run) in (0, 400, 409, 413, 422)


PATHS = st.sampled_from(
    ["Patient", "Patient.name", "Patient.name.given", "Patient.name.given[1]", "Patient.deceased", "Patient.contained"]
)
PARTS = {
    "type": st.sampled_from(["add", "insert", "delete", "replace", "move"]).map(lambda kind: {"valueCode": kind}),
    "path": PATHS.map(lambda path: {"valueString": path}),
    "name": st.sampled_from(["given", "deceased", "name", "x"]).map(lambda name: {"valueString": name}),
    "value": st.sampled_from(
        [{"valueString": "x"}, {"valueBoolean": True}, {"valueHumanName": {"text": "x"}}, {"part": []}, {}]
    ),
    "index": st.integers(0, 3).map(lambda number: {"valueInteger": number}),
    "source": st.integers(0, 2).map(lambda number: {"valueInteger": number}),
    "destination": st.integers(0, 2).map(lambda number: {"valueInteger": number}),
}
NEEDED = {
    "add": ("name", "value"),
    "insert": ("value", "index"),
    "delete": (),
    "replace": ("value",),
    "move": ("source", "destination"),
}


@st.composite
def fhirpath_operations(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(PARTS["type"])
    names = ["path", *NEEDED[kind["valueCode"]]]
    parts = [{"name": "type", **kind}, *({"name": name, **draw(PARTS[name])} for name in names)]
    return {"name": "operation", "part": parts}


@given(st.lists(fhirpath_operations(), min_size=1, max_size=4))
def test_any_fhirpath_patch(operations: list[dict[str, Any]]) -> None:
    body = orjson.dumps({"resourceType": "Parameters", "parameter": operations})

    def run() -> None:
        dump(parse_fhirpath_patch(body, 10).apply(load(orjson.dumps(PATIENT)), "Patient", 50_000))

    assert refusal(run) in (0, 400, 413, 422)
