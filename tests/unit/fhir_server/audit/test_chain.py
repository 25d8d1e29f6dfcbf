"""Blocks and seals: what each digest and code depends on. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fhir_server.audit.chain import EVENTS, Head, Removal, block_digest, list_digest, next_block, removal_of
from fhir_server.audit.seal import BrokenSealError, Seal, leaf

_AT = datetime(2026, 11, 22, 8, tzinfo=UTC)
_SEAL = Seal("SYNTHETIC secret", "SHA-256")
_BLOCK = next_block(Head(4, b"p" * 32), EVENTS, _AT, _SEAL, [1, -2], b"d" * 64, "SHA-256", b"note")


def test_a_block_follows_the_head():
    assert (_BLOCK.number, _BLOCK.previous, _BLOCK.count) == (5, b"p" * 32, 2)
    assert next_block(None, EVENTS, _AT, _SEAL, [], b"", "SHA-256", b"").previous == bytes(32)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 6},
        {"kind": "removal"},
        {"at": _AT + timedelta(microseconds=1)},
        {"count": 3},
        {"list_digest": b"x" * 32},
        {"note": b"other"},
        {"previous": b"q" * 32},
    ],
)
def test_the_digest_depends_on_everything(change: dict[str, object]):
    assert block_digest(replace(_BLOCK, **change)) != _BLOCK.digest  # type: ignore[arg-type]


def test_the_digest_stands_when_the_list_is_gone():
    assert block_digest(replace(_BLOCK, rows=None, digests=None)) == _BLOCK.digest


def test_the_list_depends_on_order_and_place():
    one = list_digest("SHA-256", [1, 2], b"a" * 32 + b"b" * 32)
    assert one != list_digest("SHA-256", [2, 1], b"a" * 32 + b"b" * 32)
    assert one != list_digest("SHA-256", [1, 2], b"b" * 32 + b"a" * 32)


@pytest.mark.parametrize(
    ("row", "name", "version", "updated", "content"),
    [
        (2, "a", 1, _AT, b"{}"),
        (1, "b", 1, _AT, b"{}"),
        (1, "a", 2, _AT, b"{}"),
        (1, "a", 1, _AT + timedelta(milliseconds=1), b"{}"),
        (1, "a", 1, _AT, b"{ }"),
        (1, "a{", 1, _AT, b"}"),
    ],
)
def test_a_leaf_depends_on_everything(row: int, name: str, version: int, updated: datetime, content: bytes):
    assert leaf("SHA-256", row, name, version, updated, content) != leaf("SHA-256", 1, "a", 1, _AT, b"{}")


@pytest.mark.parametrize("algorithm", ["SHA-256", "SM3"])
def test_a_group_is_read_by_any_seal_of_the_secret(algorithm: str):
    group = Seal("SYNTHETIC secret", algorithm).group(b"[1]")
    assert _SEAL.records(group) == b"[1]"
    for bad in (group[:-1], group[:20], b"", b"[1]", group.replace(b"[1]", b"[2]"), b"3" + group[1:]):
        with pytest.raises(BrokenSealError):
            _SEAL.records(bad)
    with pytest.raises(BrokenSealError):
        Seal("another secret", algorithm).records(group)


def test_a_code_of_one_purpose_is_none_of_another():
    codes = {_SEAL.code("batch", "SHA-256", b"x"), _SEAL.code("block", "SHA-256", b"x"), _SEAL.group(b"x")[1:33]}
    assert len(codes) == 3


def test_a_removal_is_read_again():
    told = Removal(1, 7, 900, "admin", "foramen-cli", "2026-01-01T00:00:00+00:00", "trace")
    assert removal_of(told.note()) == told
