"""Values that are sealed: bound to their purpose, named by cipher and key, and what version 1 has sealed; SYNTHETIC."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from foramen.identity import tables
from foramen.identity.sealed_columns import SEALED_COLUMNS
from foramen.identity.sealing import DataKeys, parse_data_keys, read_data_keys
from foramen.kernel.crypto.generations import key_id
from foramen.kernel.errors import InteropError

CIPHERS = ("AES-256-GCM", "SM4-GCM")


@pytest.mark.parametrize("name", CIPHERS)
def test_sealing_binds_to_its_purpose_and_keys_rotate(name):
    old, new = DataKeys((b"a" * 32,), name), DataKeys((b"b" * 32, b"a" * 32), name)
    sealed = old.seal(b"secret", "totp:a:1")
    assert sealed.startswith(f"v2:{name}:{key_id(b'a' * 32)}:")
    assert old.seal(b"secret", "totp:a:1") != sealed
    assert new.unseal(sealed, "totp:a:1") == b"secret"
    assert not new.is_current(sealed)
    assert new.is_current(new.seal(b"secret", "x"))
    other = CIPHERS[1 - CIPHERS.index(name)]
    foreign_key = sealed.replace(key_id(b"a" * 32), key_id(b"b" * 32))
    for value, purpose in (
        (sealed, "totp:b:1"),
        (_with_another_last_byte(sealed), "totp:a:1"),
        (sealed[:-1], "totp:a:1"),
        (sealed[:40], "totp:a:1"),
        (sealed.replace(name, other), "totp:a:1"),  # said to be of the other cipher
        (foreign_key, "totp:a:1"),
        (f"v1:{sealed.split(':', 2)[2]}", "totp:a:1"),
        ("v2:AES-128-ECB:0:AAAA", "totp:a:1"),
        ("v1:000000000000:AAAA", "totp:a:1"),
        ("v3" + sealed[2:], "totp:a:1"),
        ("plain text", "totp:a:1"),
        ("", "totp:a:1"),
    ):
        with pytest.raises(InteropError) as refused:
            new.unseal(value, purpose)
        assert "secret" not in str(refused.value)
        assert not value or value not in str(refused.value)
    with pytest.raises(InteropError):
        DataKeys((b"b" * 32,)).unseal(sealed, "totp:a:1")


def _with_another_last_byte(sealed: str) -> str:
    head, _, body = sealed.rpartition(":")
    decoded = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    return f"{head}:{base64.urlsafe_b64encode(decoded[:-1] + bytes([decoded[-1] ^ 1])).decode().rstrip('=')}"


def test_the_cipher_may_change_and_change_back():
    secrets = (b"a" * 32,)
    aes, sm4 = (DataKeys(secrets, name) for name in CIPHERS)
    by_aes, by_sm4 = aes.seal(b"secret", "x"), sm4.seal(b"secret", "x")
    for keys in (aes, sm4):
        assert keys.unseal(by_aes, "x") == keys.unseal(by_sm4, "x") == b"secret"
    assert (sm4.is_current(by_aes), sm4.is_current(by_sm4)) == (False, True)
    assert (aes.is_current(by_aes), aes.is_current(by_sm4)) == (True, False)


def test_what_version_1_sealed_is_opened_and_counts_as_old():
    secret, nonce = b"a" * 32, b"n" * 12
    body = base64.urlsafe_b64encode(nonce + AESGCM(secret).encrypt(nonce, b"old secret", b"totp:a:1"))
    value = f"v1:{key_id(secret)}:{body.rstrip(b'=').decode()}"
    for name in CIPHERS:
        keys = DataKeys((b"b" * 32, secret), name)
        assert keys.unseal(value, "totp:a:1") == b"old secret"
        assert not keys.is_current(value)
        with pytest.raises(InteropError):
            keys.unseal(value, "totp:a:2")


def test_data_keys_file(tmp_path: Path):
    made = read_data_keys(tmp_path, None)
    assert read_data_keys(tmp_path, None).current_id == made.current_id
    for text in ("", "# none\n", "c2hvcnQ"):
        with pytest.raises(InteropError):
            parse_data_keys(text)
    with pytest.raises(InteropError):
        read_data_keys(tmp_path, tmp_path / "absent")


def test_every_sealed_column_is_known_to_rotation():
    known = {(one.table.name, one.name) for one in SEALED_COLUMNS}
    declared = {
        (table.name, column.name)
        for table in tables.metadata.tables.values()
        for column in table.columns
        if column.name.startswith("sealed")
    }
    assert known == declared
