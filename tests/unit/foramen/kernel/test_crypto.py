"""Digests, codes and signatures against published values; SYNTHETIC keys."""

from __future__ import annotations

import json

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from foramen.kernel.crypto import SignatureError, StatementSigner, digest_algorithm, verified_statement

_KEY = ECKey.generate_key("P-256", parameters={"kid": "k"}, private=True)
_SIGNER = StatementSigner(_KEY, "test+jws")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        # GB/T 32905-2016 annex A.1 and A.2; FIPS 180-4 examples.
        ("SM3", b"abc", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
        ("SM3", b"abcd" * 16, "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"),
        ("SHA-256", b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
)
def test_published_digests(name: str, data: bytes, expected: str):
    assert digest_algorithm(name).digest(data).hex() == expected


def test_published_hmac():
    # RFC 4231 §4.2
    expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    assert digest_algorithm("SHA-256").mac(b"\x0b" * 20, b"Hi There").hex() == expected


def test_hmac_of_sm3_is_the_one_of_rfc_2104():
    own, key, data = digest_algorithm("SM3"), b"\x0b" * 20, b"Hi There"
    inner, outer = (bytes(byte ^ pad for byte in key.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    assert own.mac(key, data) == own.digest(outer + own.digest(inner + data))


@pytest.mark.parametrize("name", ["SHA-256", "SM3"])
def test_a_code_depends_on_key_and_data(name: str):
    own = digest_algorithm(name)
    codes = {own.mac(b"k1", b"a"), own.mac(b"k2", b"a"), own.mac(b"k1", b"b"), own.digest(b"a")}
    assert len(codes) == 4
    assert {len(code) for code in codes} == {32}


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(ValueError, match="unknown"):
        digest_algorithm("MD5")


def test_what_was_signed_is_read_again():
    assert verified_statement(_SIGNER.sign(b"hello") + "\n", _SIGNER.public(), "test+jws") == b"hello"
    assert "d" not in _SIGNER.public()


def _with_header(**header: str) -> str:
    return jws.serialize_compact({"alg": "ES256", "typ": "test+jws", **header}, b"x", _KEY)


def test_foreign_signatures_are_refused():
    other = StatementSigner(ECKey.generate_key("P-256", parameters={"kid": "k"}, private=True), "test+jws")
    public = _SIGNER.public()
    # The public key used as the secret of an HMAC: algorithm confusion.
    secret = OctKey.import_key(json.dumps(public))
    confused = jws.serialize_compact({"alg": "HS256", "typ": "test+jws"}, b"x", secret, algorithms=["HS256"])
    unsigned = "eyJhbGciOiJub25lIiwidHlwIjoidGVzdCtqd3MifQ.eA."
    for text in (other.sign(b"x"), confused, unsigned, "", "a.b.c", "no", _with_header(typ="other")):
        with pytest.raises(SignatureError):
            verified_statement(text, public, "test+jws")
