"""Pure parts of the study index: checksums, folded texts, ranges, levels, XML."""

from __future__ import annotations

import zlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.index.checksums import crc32_combine
from dicomweb.index.folding import fold, gram_of_pattern, grams, words
from dicomweb.index.levels import SERIES_TAGS, STUDY_TAGS, level_of
from dicomweb.native_model import native_xml
from dicomweb.search.answer import Answer
from dicomweb.search.parameters import parse
from dicomweb.search.ranges import bounds
from dicomweb.visibility import Visible
from foramen.kernel.errors import InvalidRequestError


@given(st.binary(max_size=300), st.binary(max_size=70_000))
def test_checksums_of_two_texts_in_a_row(first: bytes, second: bytes) -> None:
    assert crc32_combine(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_names_lose_case_accents_and_width_but_no_han_character() -> None:
    assert fold("MÜLLER^Jörg") == "muller^jorg"
    assert fold("ＬＩ^雷") == "li^雷"
    assert fold("Straße") == "strasse"
    assert words("LI^LEI LEI=李^雷") == ["li", "lei", "李", "雷"]


@given(st.lists(st.text("abcÄ李^ ", max_size=6), max_size=3), st.text("abÄ李", max_size=5))
def test_whatever_matches_a_pattern_holds_its_piece(parts: list[str], between: str) -> None:
    piece = gram_of_pattern("*" + "*".join(parts) + "*")
    assert piece is None or piece in grams(between + between.join(parts) + between)
    assert gram_of_pattern("*lumbar*") in ("lum", "umb", "mba", "bar")
    assert gram_of_pattern("*29*") == "29"
    assert gram_of_pattern("*zq*lum*") == "lum", "a piece of two is held by many"
    assert gram_of_pattern("*lei*雷*") == "雷"


@pytest.mark.parametrize(
    ("value", "vr", "inside", "outside"),
    [
        ("20260101-20260131", "DA", ["20260101", "20260131"], ["20251231", "20260201"]),
        ("20260101-", "DA", ["20260101", "20991231"], ["20251231"]),
        ("1015", "TM", ["1015", "101559.999"], ["1016", "1014"]),
        ("10:15-11", "TM", ["101500", "115959"], ["120000", "1014"]),
        ("2026-202603", "DT", ["20260101", "20260331235959"], ["20251231", "20260401"]),
        ("20260101100000-0500", "DT", ["20260101100000"], ["20260102"]),
        ("20260101-20260102+0800", "DT", ["20260102120000"], ["20260103"]),
    ],
)
def test_ranges(value: str, vr: str, inside: list[str], outside: list[str]) -> None:
    low, high = bounds(value, vr, "x")
    assert all(low <= text <= high for text in inside)
    assert not any(low <= text <= high for text in outside)


@pytest.mark.parametrize(("value", "vr"), [("-", "DA"), ("2026", "DA"), ("a-b", "TM"), ("1-2-3", "TM"), ("", "DT")])
def test_malformed_ranges(value: str, vr: str) -> None:
    with pytest.raises(InvalidRequestError):
        bounds(value, vr, "x")


def test_levels() -> None:
    assert not STUDY_TAGS & SERIES_TAGS
    assert [level_of(tag) for tag in ("00100010", "00081030", "00080060", "00280010", "00091001")] == [
        *("study", "study", "series", "instance", "instance")
    ]


def test_xml_holds_no_character_that_xml_cannot() -> None:
    text = native_xml(
        {"00081030": {"vr": "LO", "Value": ["a\x01<b>&\ud800"]}, "00100010": {"vr": "PN", "Value": [None]}}
    )
    assert b"a&lt;b&gt;&amp;</Value>" in text


@pytest.mark.parametrize("uid", ["1.2.3", '1.2"}', "1.2é"])
@pytest.mark.parametrize("number", [None, 7])
@pytest.mark.parametrize(("frames", "rows"), [(0, None), (1, 512), (5, 512), (1, None)])
def test_the_text_written_directly_is_that_of_the_model(
    uid: str, number: int | None, frames: int, rows: int | None
) -> None:
    request = parse("instance", [], {"study": "1.2", "series": "1.2.3"})
    answer = Answer(request, Visible("true", "true", "true", []), "http://x/dicom-web")
    row = {
        "study_uid": "1.2", "series_uid": "1.2.3", "instance_uid": uid, "sop_class_uid": "1.4", "frames": frames,
        "instance_number": number, "pixel_rows": rows, "pixel_columns": rows, "bits_allocated": 16,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
    }  # fmt: skip
    (found,) = orjson.loads(answer.json([row]))
    assert found == answer.dataset(row)
    assert list(found) == sorted(found)
