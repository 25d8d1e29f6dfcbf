"""When the file with the newest head is replaced, and when it stays and contradicts. SYNTHETIC. ADR 0029"""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_server.audit.chain import Head
from fhir_server.audit.head_file import HEAD_FILE, HeadFile, KeptHead, kept_head


def head(number: int, mark: str = "a") -> Head:
    return Head(number, mark.encode() * 32)


def kept(number: int, mark: str = "a", chain: str = "c") -> KeptHead:
    return KeptHead(number, (mark.encode() * 32).hex(), chain)


def test_a_later_head_of_the_same_chain_replaces_an_earlier_one_only(tmp_path: Path):
    file = HeadFile(tmp_path)
    assert file.read() is None
    for number in (3, 5, 4):
        file.keep(head(number), "c")
    assert file.read() == kept(5)
    assert (tmp_path / HEAD_FILE).stat().st_mode & 0o777 == 0o600


def test_the_head_of_another_chain_stays(tmp_path: Path):
    file = HeadFile(tmp_path)
    file.keep(head(3), "c")
    file.keep(head(9), "other")
    assert file.read() == kept(3)


@pytest.mark.parametrize(("number", "chain"), [(2, "c"), (1, "other")])
def test_what_the_chain_tells_to_be_lost_is_replaced_by_anything(tmp_path: Path, number: int, chain: str):
    file = HeadFile(tmp_path)
    file.keep(head(7), "c")
    file.keep(head(number), chain, frozenset({kept(6)}))
    assert file.read() == kept(7)
    file.keep(head(number), chain, frozenset({kept(7)}))
    assert file.read() == kept(number, chain=chain)


def test_a_file_of_the_version_before_names_no_chain(tmp_path: Path):
    (tmp_path / HEAD_FILE).write_bytes(b'{"block":4,"digest":"ab"}')
    file = HeadFile(tmp_path)
    assert file.read() == KeptHead(4, "ab", "")
    file.keep(head(5), "c")
    assert file.read() == kept(5)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"block":"4","digest":"ab"}', b'{"block":4}'])
def test_a_damaged_file_stays_as_it_is(tmp_path: Path, text: bytes):
    (tmp_path / HEAD_FILE).write_bytes(text)
    with pytest.raises(ValueError):  # noqa: PT011 - the JSON reader's or ours
        kept_head(text)
    file = HeadFile(tmp_path)
    assert file.read() is None
    file.keep(head(5), "c", frozenset({kept(4)}))
    assert (tmp_path / HEAD_FILE).read_bytes() == text
