"""Words of texts: folded, Chinese in pairs, never anything but letters and digits in a query."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.search.full_text import MAX_WORDS, content_words, narrative_words, text_query, words
from foramen.kernel.errors import InvalidRequestError


def test_words() -> None:
    assert list(words("L5/S1: Höhe, 2.5 mm")) == ["l5", "s1", "hohe", "2", "5", "mm"]
    assert list(words("腰椎间盘MRI")) == ["腰椎", "椎间", "间盘", "盘", "mri"]
    assert list(words("")) == []


def test_markup_and_technical_elements_are_not_read() -> None:
    data = {
        "resourceType": "Condition",
        "id": "identifier",
        "text": {"status": "generated", "div": "<div class='hidden'>shown &amp; <b>bold</b></div>"},
        "code": {"coding": [{"system": "http://e.org/secret", "display": "Display"}], "text": "Text"},
    }
    assert narrative_words(data) == {"shown", "bold"}
    assert content_words(data) == {"shown", "bold", "display", "text", "generated"}


def test_a_bomb_of_words_is_cut() -> None:
    data = {"resourceType": "Basic", "note": " ".join(f"w{number}" for number in range(MAX_WORDS * 2))}
    assert len(content_words(data)) == MAX_WORDS


def test_queries() -> None:
    assert text_query("_text", "Disc hernia*") == "('disc' & 'hernia':*)"
    assert text_query("_text", "a OR -b") == "('a') | (!('b'))"
    assert text_query("_text", "间盘突 左") == "('间盘' & '盘突' & '左':*)"


@pytest.mark.parametrize("value", ["", "  ", "-", "***", "OR", " ".join(["w"] * 60)])
def test_no_words_or_too_many(value: str) -> None:
    if value == "OR":
        assert text_query("_text", value) == "('or')"
        return
    with pytest.raises(InvalidRequestError):
        text_query("_text", value)


@given(st.text(max_size=60))
def test_nothing_but_words_reaches_the_database(text: str) -> None:
    try:
        query = text_query("_text", text)
    except InvalidRequestError:
        return
    assert re.fullmatch(r"(?:'[^'\\\s]+'(?::\*)?|[()!&| ])+", query)
