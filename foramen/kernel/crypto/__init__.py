"""Cryptography behind one interface, international or 国密 (GB/T 39786): each algorithm is chosen by name.

What is stored names the algorithm that made it, so that a setting may change and old data stay readable. ADR 0031.
"""

from __future__ import annotations

from foramen.kernel.crypto.aead import CipherName, cipher
from foramen.kernel.crypto.digests import DigestAlgorithm, DigestName, digest_algorithm, same
from foramen.kernel.crypto.signatures import (
    AlgorithmUnavailableError,
    SignatureAlgorithm,
    SignatureError,
    signature_algorithm,
)
from foramen.kernel.crypto.sm2_statements import SM2, Sm2StatementSigner, algorithm_of
from foramen.kernel.crypto.statements import SIGNATURE_ALGORITHM, StatementSigner, verified_statement

__all__ = [
    "SIGNATURE_ALGORITHM",
    "SM2",
    "AlgorithmUnavailableError",
    "CipherName",
    "DigestAlgorithm",
    "DigestName",
    "SignatureAlgorithm",
    "SignatureError",
    "Sm2StatementSigner",
    "StatementSigner",
    "algorithm_of",
    "cipher",
    "digest_algorithm",
    "same",
    "signature_algorithm",
    "verified_statement",
]
