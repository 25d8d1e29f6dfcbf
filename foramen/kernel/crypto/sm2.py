"""SM2 signatures with SM3 (GB/T 32918.2-2016, GB/T 35276-2017) by the system's OpenSSL, version 3 or later.

`cryptography` has no SM2 and no Python library for it is kept well enough (ADR 0031), so the program `openssl` is run:
15 ms of CPU a signature, for rare statements. Private keys reach it through standard input or an anonymous file in
memory, never by argument or environment. https://docs.openssl.org/3.0/man7/EVP_PKEY-SM2/
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from foramen.kernel.crypto.signatures import AlgorithmUnavailableError, SignatureError, SignatureName

DISTINGUISHING_ID = "1234567812345678"
"""Default id of the signer that goes into the digest (GB/T 35276-2017 §10)."""
_TIMEOUT_S = 10
_OLDEST = 3
_CURVE = re.compile(rb"^ASN1 OID: SM2$", re.MULTILINE)


class Sm2:
    """SM2 with SM3 and the default id."""

    name: SignatureName = "SM2"

    def __init__(self) -> None:
        program = shutil.which("openssl")
        version = re.match(rb"OpenSSL (\d+)\.", _ran([program, "version"])[1]) if program else None
        if program is None or version is None or int(version.group(1)) < _OLDEST:
            raise AlgorithmUnavailableError("SM2 needs the program openssl, version 3 or later, on this machine")
        self._program = program

    def new_key(self) -> bytes:
        """Return a new private key (PEM, PKCS #8)."""
        code, made = _ran([self._program, "genpkey", "-algorithm", "SM2"])
        if code:
            raise AlgorithmUnavailableError("The OpenSSL of this machine has no SM2")
        return made

    def public_key(self, private: bytes) -> bytes:
        """Return the public key of a private key (PEM)."""
        self._check(private, "-noout")
        return self._output(["pkey", "-pubout"], private)

    def sign(self, private: bytes, data: bytes) -> bytes:
        """Return the signature (DER)."""
        self._check(private, "-noout")
        with _in_memory(private) as key:
            code, signature = self._digest_run(["-sign", key], data)
        if code or not signature:
            raise SignatureError("The private key cannot be used")
        return signature

    def verify(self, public: bytes, data: bytes, signature: bytes) -> None:
        """Check a signature."""
        self._check(public, "-pubin", "-noout")
        with ExitStack() as files:
            key, given = files.enter_context(_in_memory(public)), files.enter_context(_in_memory(signature))
            code, said = self._digest_run(["-verify", key, "-signature", given], data)
        if code or said.strip() != b"Verified OK":
            raise SignatureError("The signature does not fit")

    def _digest_run(self, what: list[str], data: bytes) -> tuple[int, bytes]:
        return _ran(
            [self._program, "dgst", "-sm3", "-sigopt", f"distid:{DISTINGUISHING_ID}", *what], data, _descriptors(what)
        )

    def _check(self, key: bytes, *options: str) -> None:
        """Refuse a key of another curve: OpenSSL would sign with it, by another algorithm."""
        if not _CURVE.search(self._output(["pkey", "-text_pub", *options], key)):
            raise SignatureError("The key is no key of SM2")

    def _output(self, arguments: list[str], given: bytes) -> bytes:
        code, output = _ran([self._program, *arguments], given)
        if code:
            raise SignatureError("The key cannot be read")
        return output


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Path of an anonymous file that this process and a child that inherits it can read."""
    descriptor = os.memfd_create("foramen")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _descriptors(arguments: list[str]) -> tuple[int, ...]:
    return tuple(int(item.rpartition("/")[2]) for item in arguments if item.startswith("/dev/fd/"))


def _ran(command: list[str], given: bytes = b"", keep: tuple[int, ...] = ()) -> tuple[int, bytes]:
    """Run a program; its standard error is dropped, as it may repeat what it was given."""
    try:
        done = subprocess.run(
            command,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=False,
            pass_fds=keep,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise AlgorithmUnavailableError("The program openssl cannot be run") from exc
    return done.returncode, done.stdout
