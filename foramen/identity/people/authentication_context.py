"""How a person signed in, in the words clients understand: `amr` and `acr` of the id_token.

OpenID Connect Core §2, RFC 8176 (authentication method references), REFEDS profiles (single and multi-factor).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foramen.identity.people.sessions import PASSKEY, PASSWORD, TOTP, two_factors

ONE_FACTOR, TWO_FACTORS = "https://refeds.org/profile/sfa", "https://refeds.org/profile/mfa"
ACR_VALUES = (ONE_FACTOR, TWO_FACTORS)
_AMR = {PASSWORD: "pwd", TOTP: "otp", PASSKEY: "pop"}
"""Our words for factors → RFC 8176 §2; a passkey proves possession of its key, a recovery code has no word there."""


def authentication_claims(factors: Sequence[str] | None) -> dict[str, Any]:
    """Return `amr` and `acr` for the factors of a session; nothing when they are not known."""
    if not factors:
        return {}
    two = two_factors(factors)
    methods = sorted({_AMR[factor] for factor in factors if factor in _AMR} | ({"mfa"} if two else set()))
    return {"acr": TWO_FACTORS if two else ONE_FACTOR, **({"amr": methods} if methods else {})}
