"""Literal references and their rewriting in bytes."""

from __future__ import annotations

import pytest

from fhir_server.model.references import (
    conditional_references,
    normalise_reference,
    parse_reference,
    rewrite_references,
)

BASE = "http://h/fhir"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Patient/1", ("Patient", "1")),
        ("Patient/1/_history/2", ("Patient", "1")),
        ("http://h/fhir/Patient/1", ("Patient", "1")),
        ("http://other/fhir/Patient/1", None),
        ("#x", None),
        ("urn:uuid:1", None),
        ("patient/1", None),
        ("Patient/" + "x" * 65, None),
    ],
)
def test_parse(text: str, expected: tuple[str, str] | None) -> None:
    assert parse_reference(text, BASE) == expected


def test_normalise_keeps_what_is_not_ours() -> None:
    assert normalise_reference("http://h/fhir/Patient/1/_history/3", BASE) == "Patient/1"
    assert normalise_reference("http://other/Patient/1", BASE) == "http://other/Patient/1"


def test_rewriting_touches_references_alone() -> None:
    text = (
        b'{"reference":"urn:uuid:a","x":{"reference" : "urn:uuid:a#p"},"value":"urn:uuid:a","valueUri":"urn:uuid:a",'
        b'"text":"say \\"reference\\":\\"urn:uuid:a\\"","div":"<a href=\\"urn:uuid:a\\">urn:uuid:a</a>"}'
    )
    assert rewrite_references(text, {b"urn:uuid:a": b"P/1"}) == (
        b'{"reference":"P/1","x":{"reference" : "P/1#p"},"value":"urn:uuid:a","valueUri":"P/1",'
        b'"text":"say \\"reference\\":\\"urn:uuid:a\\"","div":"<a href=\\"P/1\\">urn:uuid:a</a>"}'
    )


def test_conditional_references_are_found() -> None:
    text = b'{"reference":"Patient?identifier=a|b","q":"Patient?x=y"}'
    assert conditional_references(text) == {b"Patient?identifier=a|b"}
