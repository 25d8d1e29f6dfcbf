"""What COPY sends becomes lines again; files are counted, split and cut at their records."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path

import orjson
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.bulk.files import Changed, NdjsonFiles, Unquoted
from fhir_server.store.bulk import QUOTE

# A value as it may lie in the record: JSON, with white space of any kind between its tokens.
space = st.text(" \t\r\n", max_size=3)
values = st.builds(
    lambda before, text, after: "{" + before + '"a":' + orjson.dumps(text).decode() + after + "}",
    space,
    st.text(),
    space,
)


def copied(rows: list[str]) -> bytes:
    """Write rows as PostgreSQL's COPY … CSV does: quoted only where a delimiter, quote or line break is."""
    out = io.StringIO()
    for row in rows:
        quoted = any(c in row for c in "\r\n\x01\x02")
        out.write(f"\x01{row}\x01\n" if quoted else f"{row}\n")
    return out.getvalue().encode()


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


@given(st.lists(values, max_size=8), st.lists(st.integers(0, 10_000), max_size=8))
def test_each_value_becomes_one_line_of_equal_json_whatever_the_pieces(rows: list[str], places: list[int]) -> None:
    plain = Unquoted()
    text = b"".join(map(plain, cut(copied(rows), places)))
    lines = text.split(b"\n")
    assert lines.pop() == b""
    assert QUOTE not in text
    assert b"\r" not in text
    assert [orjson.loads(line) for line in lines] == [orjson.loads(row) for row in rows]


@given(
    st.lists(st.binary(min_size=1, max_size=20).map(lambda b: b.replace(b"\n", b".")), max_size=20),
    st.lists(st.integers(0, 10_000)),
)
def test_lines_are_changed_whole(lines: list[bytes], places: list[int]) -> None:
    change = Changed(lambda line: None if line.startswith(b"a") else line[::-1])
    text = b"".join(map(change, cut(b"".join(line + b"\n" for line in lines), places)))
    assert text == b"".join(line[::-1] + b"\n" for line in lines if not line.startswith(b"a"))


def test_files_hold_whole_lines_and_what_their_records_say(tmp_path: Path) -> None:
    files = NdjsonFiles(tmp_path, "output", "Patient", 100)
    rows = [b"x" * (n % 40) + b"\n" for n in range(100)]
    text = b"".join(rows)
    for start in range(0, len(text), 33):
        files.write(text[start : start + 33])
    files.sync()
    on_disk = [(tmp_path / record["name"]).read_bytes() for record in files.records]
    files.close()
    assert b"".join(on_disk) == text
    for content, record in zip(on_disk, files.records, strict=True):
        assert (len(content), content.count(b"\n")) == (record["bytes"], record["count"])
        assert content.endswith(b"\n")
        assert len(content) < 100 + 41
    assert oct((tmp_path / files.records[0]["name"]).stat().st_mode)[-3:] == "600"


def test_nothing_written_makes_no_file(tmp_path: Path) -> None:
    files = NdjsonFiles(tmp_path / "job", "output", "Patient", 100)
    files.write(b"")
    files.sync()
    files.close()
    assert files.records == []
    assert not (tmp_path / "job").exists()


def test_the_model_of_copy_is_that_of_csv() -> None:
    """Our own writer above against Python's reader, so that the test does not prove itself."""
    rows = ['{"a":1}', '{"a":\r1}', "{}"]
    read = csv.reader(io.StringIO(copied(rows).decode(), newline=""), delimiter="\x02", quotechar="\x01")
    assert [row[0] for row in read] == rows
