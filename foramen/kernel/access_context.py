"""Who asks, and what they may see: SMART scopes and launch context as one immutable value.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from foramen.kernel.errors import ForbiddenError

_SCOPE = re.compile(r"^(patient|user|system)/(\*|[A-Z][A-Za-z]*)\.(c?r?u?d?s?|read|write|\*)$")
ADMINISTRATOR = "foramen/admin"
"""Scope of a system administrator: maintenance of the record (expunge, packages, search parameters, import, plans)."""
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}


class Reach(Enum):
    """How far a granted scope reaches."""

    EVERYTHING = "everything"
    COMPARTMENT = "compartment"


@dataclass(frozen=True, slots=True)
class Scope:
    """One SMART v2 resource scope, e.g. ``patient/Observation.rs``."""

    context: str
    resource_type: str
    actions: str

    def covers(self, resource_type: str, action: str) -> bool:
        """Whether this scope grants `action` (one of c r u d s) on the type."""
        return action in self.actions and self.resource_type in ("*", resource_type)

    def __str__(self) -> str:
        return f"{self.context}/{self.resource_type}.{self.actions}"


def parse_scope(text: str) -> Scope | None:
    """Parse one resource scope; anything unknown is None and grants nothing."""
    match = _SCOPE.match(text)
    if match is None:
        return None
    context, resource_type, actions = match.groups()
    actions = _V1.get(actions, actions)
    return Scope(context, resource_type, actions) if actions else None


@dataclass(frozen=True, slots=True)
class AccessContext:
    """The verified content of one access token."""

    subject: str
    client_id: str
    scopes: tuple[Scope, ...]
    scope_text: str = ""
    patient: str | None = None
    encounter: str | None = None
    fhir_user: str | None = None
    institution: str | None = None
    token_id: str = ""

    @property
    def is_person(self) -> bool:
        """Whether a person (a Practitioner or Patient) stands behind the token, not a service."""
        return self.fhir_user is not None and self.fhir_user.split("/")[0] in ("Practitioner", "Patient")

    @property
    def practitioner(self) -> str | None:
        """`Practitioner/id` when a practitioner signed in, else None."""
        return self.fhir_user if self.fhir_user and self.fhir_user.startswith("Practitioner/") else None

    def has_scope(self, name: str) -> bool:
        """Whether a non-resource scope such as ``launch`` was granted."""
        return name in self.scope_text.split()

    def require_administrator(self) -> None:
        """Refuse everybody but a system administrator.

        Raises
        ------
        ForbiddenError
            The token lacks the scope ``foramen/admin``.
        """
        if not self.has_scope(ADMINISTRATOR):
            raise ForbiddenError(f"Only an administrator may do this (scope {ADMINISTRATOR})")

    def reach(self, resource_type: str, action: str) -> Reach:
        """How far the token reaches for one interaction.

        Parameters
        ----------
        resource_type : FHIR resource type
        action : one of ``c r u d s`` (SMART v2)

        Raises
        ------
        ForbiddenError
            No scope grants it, or a patient scope has no patient to bind to.
        """
        granted = [scope for scope in self.scopes if scope.covers(resource_type, action)]
        if any(scope.context in ("user", "system") for scope in granted):
            return Reach.EVERYTHING
        if granted and self.patient is not None:
            return Reach.COMPARTMENT
        raise ForbiddenError(f"The token has no scope for {resource_type}.{action}")

    def covers(self, other: AccessContext) -> bool:
        """Whether this token reaches everything that another's resource scopes reach, in the same patient's record."""
        if other.has_scope(ADMINISTRATOR) and not self.has_scope(ADMINISTRATOR):
            return False
        asked = {(scope.resource_type, action) for scope in other.scopes for action in scope.actions}
        return all(self._reaches_like(other, *one) for one in asked)

    def _reaches_like(self, other: AccessContext, resource_type: str, action: str) -> bool:
        try:
            wanted = other.reach(resource_type, action)
        except ForbiddenError:
            return True  # A patient scope without a patient reached nothing.
        try:
            found = self.reach(resource_type, action)
        except ForbiddenError:
            return False
        return found is Reach.EVERYTHING or (found is wanted and self.patient == other.patient)


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Parse a space-separated scope string, keeping the resource scopes that are understood."""
    return tuple(scope for part in text.split() if (scope := parse_scope(part)) is not None)
