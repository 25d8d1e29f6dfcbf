"""Ciphers against published values; SYNTHETIC keys."""

from __future__ import annotations

import pytest

from foramen.kernel.crypto.aead import NONCE_BYTES, BrokenCiphertextError, cipher

_AAD = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
# RFC 8998 appendix A.1
_SM4 = {
    "key": "0123456789abcdeffedcba9876543210",
    "nonce": "00001234567800000000abcd",
    "plain": "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd"
    "eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa",
    "sealed": "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735"
    "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d",
    "tag": "83de3541e4c2b58177e065a9bf7b62ec",
}
# The GCM specification submitted to NIST, test case 16 (AES-256)
_AES = {
    "key": "feffe9928665731c6d6a8f9467308308" * 2,
    "nonce": "cafebabefacedbaddecaf888",
    "plain": "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    "sealed": "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
    "tag": "76fc6ece0f4e1768cddf8853bb2d551b",
}


@pytest.mark.parametrize(("name", "example"), [("SM4-GCM", _SM4), ("AES-256-GCM", _AES)])
def test_published_ciphertexts(name: str, example: dict[str, str]):
    given = {key: bytes.fromhex(value) for key, value in example.items()}
    own, aad = cipher(name), bytes.fromhex(_AAD)
    content = own.encrypt(given["key"], given["plain"], aad, given["nonce"])
    assert content == given["nonce"] + given["sealed"] + given["tag"]
    assert own.decrypt(given["key"], content, aad) == given["plain"]


@pytest.mark.parametrize("name", ["SM4-GCM", "AES-256-GCM"])
def test_any_change_is_refused(name: str):
    own = cipher(name)
    key = own.key(b"s" * 32, "test")
    content = own.encrypt(key, b"SYNTHETIC secret", b"row 1")
    assert own.encrypt(key, b"SYNTHETIC secret", b"row 1")[:NONCE_BYTES] != content[:NONCE_BYTES]
    changed = [content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in range(len(content))]
    cut = [content[:length] for length in range(len(content))]
    for bad in [*changed, *cut, content + b"\0"]:
        with pytest.raises(BrokenCiphertextError):
            own.decrypt(key, bad, b"row 1")
    for other_key, aad in (
        (key, b"row 2"),
        (own.key(b"t" * 32, "test"), b"row 1"),
        (own.key(b"s" * 32, "x"), b"row 1"),
    ):
        with pytest.raises(BrokenCiphertextError):
            own.decrypt(other_key, content, aad)


def test_ciphers_share_no_key():
    aes, sm4 = cipher("AES-256-GCM").key(b"s" * 32, "seal"), cipher("SM4-GCM").key(b"s" * 32, "seal")
    assert (len(aes), len(sm4)) == (32, 16)
    assert not aes.startswith(sm4)
    assert b"s" * 16 not in aes + sm4


def test_unknown_ciphers_and_keys_of_a_wrong_size_are_refused():
    with pytest.raises(ValueError, match="unknown"):
        cipher("AES-128-ECB")
    for name in ("SM4-GCM", "AES-256-GCM"):
        with pytest.raises(ValueError, match="bytes"):
            cipher(name).encrypt(b"k" * 24, b"", b"")
