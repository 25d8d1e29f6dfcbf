"""Splicing `id` and `meta` into the bytes of a resource."""
# ruff: noqa: E501 - exact bytes

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.model.resource import check_depth, plain, splice
from foramen.kernel.errors import InvalidRequestError

AT = "2026-11-22T08:00:00.000Z"
NUMBERS = st.one_of(
    st.integers().map(str), st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.sampled_from(["1.10", "-0.0", "1E2", "1.0e-7", "100.000"]),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(NUMBERS, st.text().map(json.dumps), st.sampled_from(["true", "false", "null"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(
            lambda items: "{" + ",\n ".join(f"{json.dumps(k)} : {v}" for k, v in items.items()) + "}"
        ),
    ),
    max_leaves=6,
)
NAMES = st.text(min_size=1, max_size=6).filter(lambda name: name not in ("resourceType", "id", "meta"))


def exact(text: bytes | str) -> Any:
    return json.loads(text, parse_float=lambda t: ("n", t), parse_int=lambda t: ("n", t), strict=False)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_everything_but_id_and_meta_keeps_its_text(members: dict[str, str]) -> None:
    parts = ['"resourceType":"Basic"', *(f"{json.dumps(name)}: {value}" for name, value in members.items())]
    sent = ("{" + ",\n".join(parts) + "}").encode("utf-8", "surrogatepass")
    try:
        orjson.loads(sent)
    except orjson.JSONDecodeError:
        return  # Lone surrogates and the like are refused before splicing.
    stored = exact(splice(sent, "x", 3, AT))
    before = exact(sent)
    assert {k: v for k, v in stored.items() if k not in ("id", "meta")} == before
    assert stored["id"] == "x"
    assert stored["meta"] == {"versionId": "3", "lastUpdated": AT}


def test_meta_keeps_what_the_client_said_and_its_place() -> None:
    body = b'{"resourceType":"Basic","code":{"text":"x"},"meta":{"versionId":"99","tag":[{"code":"t"}],"lastUpdated":"1999"},"id":"old"}'
    spliced = splice(body, "new", 1, AT)
    assert spliced == (
        b'{"resourceType":"Basic","code":{"text":"x"},"meta":{"versionId":"1","lastUpdated":"' + AT.encode()
        + b'","tag":[{"code":"t"}]},"id":"new"}'
    )  # fmt: skip


@pytest.mark.parametrize("body", [b"[" * 100, b'{"a":' * 100, b'{"a":[' * 50 + b"]}" * 50])
def test_depth(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        check_depth(body, 64)


def test_brackets_in_strings_are_no_depth() -> None:
    check_depth(orjson.dumps({"a": "[" * 1000, "b": '"[[[{{{\\"' * 100}), 64)
    check_depth(b'{"a":[' + b'{"b":[1]},' * 1000 + b'{"b":[1]}]}', 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'{"\u0069d":1}', b'{"id":1}'),
        (rb'{"a":["http:\/\/x\/1","\u0069",":\u0069"]}', None),
        (rb'{"r\u0065ference" : "http:\/\/x\/1"}', b'{"reference" : "http://x/1"}'),
        (rb'{"url":"\\u0069d"}', None),
        (rb'{"url":"\\\u0069d"}', rb'{"url":"\\id"}'),
        (rb'{"url":"\\\\\/"}', rb'{"url":"\\\\/"}'),
        (rb'{"url":"\u0022\u005c\u007f\u0000\u001f\u00fc\ud83d\ude00"}', None),
        (rb'{"url":"\u005cu0069d\n\t\"\u0041"}', rb'{"url":"\u005cu0069d\n\t\"A"}'),
        (rb'{"url":"\u003Cdiv\u003E\u0041\u0042"}', b'{"url":"<div>AB"}'),
    ],
)
def test_only_needless_escapes_go(text: bytes, expected: bytes | None) -> None:
    assert plain(text) == (expected or text)
    assert orjson.loads(plain(text)) == orjson.loads(text)


@given(st.text(st.sampled_from('\\"/u0069d5cAn<\u00fc\x7f\x00')), st.data())
def test_escapes_mean_the_same_without_need(value: str, data: st.DataObject) -> None:
    spelled = "".join(f"\\u{ord(c):04x}" if data.draw(st.booleans()) else orjson.dumps(c).decode()[1:-1] for c in value)
    text = f'{{"{spelled}":"{spelled}"}}'.encode()
    assert orjson.loads(plain(text)) == {value: value}


def test_a_name_written_with_escapes_is_the_same_name() -> None:
    for body in (
        rb'{"resourceType":"Patient","\u0069d":"x","a":1}',
        rb'{"resourceType":"Patient","m\u0065ta":{},"a":1}',
    ):
        text = splice(body, "own", 1, "2026-01-01T00:00:00.000Z")
        names = [name for name, _ in json.loads(text, object_pairs_hook=list)]
        assert sorted(names) == ["a", "id", "meta", "resourceType"]
        assert orjson.loads(text)["id"] == "own"
