"""ES256 and SM2 against published values, and each against keys and signatures of the other; SYNTHETIC keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from foramen.kernel.crypto import AlgorithmUnavailableError, SignatureError, signature_algorithm
from foramen.kernel.crypto.sm2 import DISTINGUISHING_ID, Sm2

# GB/T 32918.5-2017 annex A.2: message "message digest", id 1234567812345678, the recommended curve.
_X = "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
_Y = "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
_R = 0xF5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3
_S = 0xB1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA
_SM2_KEY_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d03420004")  # RFC 5480 with the SM2 curve
# RFC 6979 appendix A.2.5: P-256 with SHA-256, message "sample".
_P256 = (
    0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6,
    0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299,
)
_P256_SIGNATURE = encode_dss_signature(
    0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
    0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
)
ALGORITHMS = ("ES256", "SM2")


def _pem(der: bytes) -> bytes:
    import base64

    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(der) + b"-----END PUBLIC KEY-----\n"


def test_published_signature_of_sm2():
    assert DISTINGUISHING_ID == "1234567812345678"
    key, signature = _pem(_SM2_KEY_HEAD + bytes.fromhex(_X + _Y)), encode_dss_signature(_R, _S)
    own = signature_algorithm("SM2")
    own.verify(key, b"message digest", signature)
    for data, given in ((b"message digesT", signature), (b"message digest", encode_dss_signature(_R, _S - 1))):
        with pytest.raises(SignatureError):
            own.verify(key, data, given)


def test_published_signature_of_es256():
    numbers = ec.EllipticCurvePublicNumbers(*_P256, ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key = numbers.public_bytes(serialization.Encoding.PEM, form)
    signature_algorithm("ES256").verify(key, b"sample", _P256_SIGNATURE)
    with pytest.raises(SignatureError):
        signature_algorithm("ES256").verify(key, b"simple", _P256_SIGNATURE)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_signed_and_verified(name: str):
    own = signature_algorithm(name)
    key = own.new_key()
    public, data = own.public_key(key), "SYNTHETIC 陈述".encode() * 1000
    signature = own.sign(key, data)
    own.verify(public, data, signature)
    assert own.sign(key, data) != signature
    other = own.public_key(own.new_key())
    for verifier, said, given in (
        (public, data + b"x", signature),
        (other, data, signature),
        (public, data, signature[:-1]),
        (public, data, b""),
        (b"no key", data, signature),
    ):
        with pytest.raises(SignatureError):
            own.verify(verifier, said, given)


@pytest.mark.parametrize(("name", "foreign"), [ALGORITHMS, ALGORITHMS[::-1]])
def test_keys_of_the_other_algorithm_are_refused(name: str, foreign: str):
    own, other = signature_algorithm(name), signature_algorithm(foreign)
    key = other.new_key()
    signature = other.sign(key, b"x")
    with pytest.raises(SignatureError):
        own.sign(key, b"x")
    with pytest.raises(SignatureError):
        own.public_key(key)
    with pytest.raises(SignatureError):
        own.verify(other.public_key(key), b"x", signature)


def test_without_a_fitting_openssl_sm2_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AlgorithmUnavailableError, match="openssl"):
        signature_algorithm("SM2")
    old = tmp_path / "openssl"
    old.write_text("#!/bin/sh\necho OpenSSL 1.1.1w\n", encoding="utf-8")
    old.chmod(0o755)
    with pytest.raises(AlgorithmUnavailableError, match="version 3"):
        signature_algorithm("SM2")


def test_a_private_key_of_sm2_is_in_no_argument_environment_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The program is replaced by one that notes what it can be seen with from outside, and then does its work."""
    import shutil

    real = shutil.which("openssl")
    spy, seen = tmp_path / "openssl", tmp_path / "seen"
    spy.write_text(f'#!/bin/sh\necho "$@" >> {seen}\nenv >> {seen}\nexec {real} "$@"\n', encoding="utf-8")
    spy.chmod(0o755)
    own = Sm2()
    key = own.new_key()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    Sm2().sign(key, b"x")
    noted = seen.read_text(encoding="utf-8")
    assert "-sm3" in noted
    body = b"".join(key.splitlines()[1:-1]).decode()
    assert body[:24] not in noted
    assert all(body[:24] not in path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def test_unknown_algorithms_are_refused():
    with pytest.raises(ValueError, match="unknown"):
        signature_algorithm("none")
