"""Splicing `id` and `meta` into the bytes of a resource."""
# ruff: noqa: E501 - exact bytes

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.model.resource import check_depth, splice
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
