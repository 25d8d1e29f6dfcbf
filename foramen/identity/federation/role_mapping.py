"""From a provider's groups to a role, an institution and a Practitioner of ours. Pure.

Only what is mapped by name counts: no group, no role; the first line of the mapping that fits decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from foramen.identity.federation.outside_identity import values_of
from foramen.identity.federation.provider_settings import ProviderSettings
from foramen.identity.rights.roles import INSTITUTION_ADMINISTRATOR

_PRACTITIONER = re.compile(r"(?:\S*/)?Practitioner/([A-Za-z0-9\-.]{1,64})|([A-Za-z0-9\-.]{1,64})")


@dataclass(frozen=True, slots=True)
class Mapped:
    """What somebody is here, by what the provider says now."""

    role: str
    institution: str | None
    practitioner: str | None


def mapped(settings: ProviderSettings, claims: dict[str, Any]) -> Mapped | None:
    """Return what the claims make of somebody; None: nothing, they have no role here."""
    groups = set(values_of(claims, settings.groups_claim))
    role = next((line.role for line in settings.roles if line.group in groups), None)
    institution = _institution(settings, claims)
    if role is None or (role == INSTITUTION_ADMINISTRATOR and institution is None):
        return None  # an institution's administrator without one would be bounded by nothing
    return Mapped(role, institution, _practitioner(settings, claims))


def _institution(settings: ProviderSettings, claims: dict[str, Any]) -> str | None:
    values = set(values_of(claims, settings.institution_claim or settings.groups_claim))
    found = (line.institution for line in settings.institutions if line.value in values)
    return next(found, settings.institution)


def _practitioner(settings: ProviderSettings, claims: dict[str, Any]) -> str | None:
    if settings.practitioner_claim is None:
        return None
    for value in values_of(claims, settings.practitioner_claim):
        match = _PRACTITIONER.fullmatch(value)
        if match:
            return match.group(1) or match.group(2)
    return None
