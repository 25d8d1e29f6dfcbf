"""Argon2id, and the same work for accounts that do not exist."""

from __future__ import annotations

import pytest

from foramen.identity.people.passwords import client_secret_matches, hash_client_secret, hash_password, password_matches
from foramen.kernel.errors import InvalidRequestError


def test_password_round_trip():
    stored = hash_password("密码-long enough")
    assert stored.startswith("$argon2id$")
    assert password_matches(stored, "密码-long enough")
    assert not password_matches(stored, "密码-long enough ")
    assert hash_password("密码-long enough") != stored


@pytest.mark.parametrize("password", ["", "short", "x" * 257])
def test_unsuitable_passwords_are_refused(password: str):
    with pytest.raises(InvalidRequestError):
        hash_password(password)


def test_without_an_account_no_password_is_right():
    assert not password_matches(None, "nobody has this password")
    assert not password_matches("not a hash", "anything at all")


def test_a_longer_password_with_the_right_beginning_is_wrong():
    stored = hash_password("x" * 256)
    assert password_matches(stored, "x" * 256)
    assert not password_matches(stored, "x" * 257)


def test_client_secrets():
    stored = hash_client_secret("s" * 43)
    assert stored.startswith("$argon2id$")
    assert client_secret_matches(stored, "s" * 43)
    assert not client_secret_matches(stored, "s" * 42)
