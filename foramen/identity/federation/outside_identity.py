"""Who a provider says somebody is: issuer and subject, and what it says about them.

OpenID Connect Core §5.7: only `iss` and `sub` together are a stable identifier.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from foramen.identity.federation.provider_settings import ProviderSettings

FEDERATED, FEDERATED_SECOND = "federated", "federated-second"
"""Words for factors of a session: what the provider vouches for; the second only where it is trusted for two."""
_MAX_VALUES, _LONGEST_VALUE = 1000, 500


class OutsideRefused(Exception):
    """The provider's answer cannot be believed, or it says no. `reason` is a word for the audit, not for the person."""

    def __init__(self, reason: str, *, denied: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.denied = reason, denied


@dataclass(frozen=True, slots=True)
class OutsideIdentity:
    """A verified answer of a provider.

    `sid` names the session out there; `authenticated_at` is when the person proved who they are, None: not said;
    `issued_at` when the provider said so.
    """

    issuer: str
    subject: str
    claims: dict[str, Any] = field(repr=False)
    issued_at: datetime
    sid: str | None = None
    authenticated_at: datetime | None = None
    id_token: str | None = field(default=None, repr=False)


def values_of(claims: dict[str, Any], path: str) -> tuple[str, ...]:
    """Return the texts of a claim: one, a list, or none. `a.b` looks inside an object, unless a claim is named so."""
    found: Any = claims.get(path)
    if found is None and "." in path:
        found = claims
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    listed = found if isinstance(found, list) else [found]
    return tuple(item for item in listed[:_MAX_VALUES] if isinstance(item, str) and 0 < len(item) <= _LONGEST_VALUE)


def factors_of(settings: ProviderSettings, claims: dict[str, Any]) -> tuple[str, ...]:
    """Return what the provider vouches for: one factor, or two where it is trusted for two and says so."""
    acr, amr = values_of(claims, settings.acr_claim), values_of(claims, settings.amr_claim)
    two = set(acr) & set(settings.two_factor_acr) or set(amr) & set(settings.two_factor_amr)
    return (FEDERATED, FEDERATED_SECOND) if two else (FEDERATED,)
