"""JSON Merge Patch by the examples of RFC 7396 appendix A that concern objects."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fhir_server.patching.exact_json import dump, load
from fhir_server.patching.merge_patch import parse_merge_patch
from fhir_server.settings import FhirSettings
from foramen.kernel.errors import InteropError

CASES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("document", "patch", "expected"), CASES)
def test_applies(document: Any, patch: Any, expected: Any) -> None:
    found = parse_merge_patch(orjson.dumps(patch), FhirSettings()).apply(load(orjson.dumps(document)), "Patient", 1000)
    assert orjson.loads(dump(found)) == expected


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b'{"resourceType":"Parameters"}'])
def test_refuses(body: bytes) -> None:
    with pytest.raises(InteropError) as caught:
        parse_merge_patch(body, FhirSettings())
    assert caught.value.status == 400
