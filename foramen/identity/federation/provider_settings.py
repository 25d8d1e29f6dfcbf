"""What an administrator says about an outside provider: whom it may sign in, as what, and how far it is trusted.

OpenID Connect Core §3.1; RFC 9700 §2; no default gives a right.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from foramen.identity.rights.roles import PATIENT, ROLES, SERVICE

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Signatures that may be allowed at all: never `none`, never a shared secret."""
_NOT_FROM_OUTSIDE = (PATIENT, SERVICE)


def _network(text: str) -> str:
    ip_network(text)
    return text


def _role(role: str) -> str:
    if role not in ROLES or role in _NOT_FROM_OUTSIDE:
        raise ValueError("not a role that an outside provider may give")
    return role


def _algorithm(name: str) -> str:
    if name not in ALGORITHMS:
        raise ValueError("not an algorithm that may be allowed")
    return name


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class GroupRole(_Said):
    """Members of a group out there have this role here."""

    group: str = Field(min_length=1, max_length=500)
    role: Annotated[str, AfterValidator(_role)]


class GroupInstitution(_Said):
    """A value of the institution claim stands for this institution here."""

    value: str = Field(min_length=1, max_length=500)
    institution: str = Field(min_length=1, max_length=64)


class ProviderSettings(_Said):
    """One provider's settings; every list is empty unless said otherwise, and an empty list permits nothing."""

    networks: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    ca_file: str | None = None
    scope: str = "openid profile"
    algorithms: tuple[Annotated[str, AfterValidator(_algorithm)], ...] = ("RS256", "PS256", "ES256")
    token_auth: Literal["client_secret_basic", "client_secret_post", "none"] = "client_secret_basic"  # noqa: S105  names of RFC 7591
    create_accounts: bool = False
    groups_claim: str = "groups"
    roles: tuple[GroupRole, ...] = ()
    institution: str | None = None
    institution_claim: str | None = None
    institutions: tuple[GroupInstitution, ...] = ()
    practitioner_claim: str | None = None
    name_claim: str = "preferred_username"
    acr_claim: str = "acr"
    amr_claim: str = "amr"
    acr_values: str = ""
    two_factor_acr: tuple[str, ...] = ()
    two_factor_amr: tuple[str, ...] = ()
    clock_skew_s: int = Field(default=60, ge=0, le=300)
    single_logout: bool = True

    def ca_path(self) -> Path | None:
        """File of the certificate authorities to trust in place of the machine's own."""
        return Path(self.ca_file) if self.ca_file else None
