"""Who asks, and what they may see: SMART scopes and launch context as one immutable value.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from foramen.kernel import scope_query
from foramen.kernel.errors import ForbiddenError

_SCOPE = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]*)\.(c?r?u?d?s?|read|write|\*)(?:\?(.*))?")
ADMINISTRATOR = "foramen/admin"
"""Scope of a system administrator: maintenance of the record (expunge, packages, search parameters, import, plans)."""
GATEWAY = "foramen/gateway"
"""Scope of our own gateways to pixels alone: they learn whose records are closed, and to whom, to hide the images."""
REGISTERED_BY_GATEWAY = frozenset({"Patient", "ImagingStudy", "Task", "DiagnosticReport"})
"""Types that a closed record keeps open to a gateway: what it does not know as somebody's it could not hide."""
NAMED_ALONE = frozenset({"AuditEvent"})
"""Types that `*` leaves out in the scopes of people: the audit trail tells what others did, and is for auditors."""
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}


class Reach(Enum):
    """How far a granted scope reaches."""

    EVERYTHING = "everything"
    COMPARTMENT = "compartment"
    RESTRICTED = "restricted"
    """Only what fulfils a query (`AccessContext.restrictions`): who cannot ask it refuses."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One SMART v2 resource scope, e.g. ``patient/Observation.rs`` or ``patient/Observation.rs?category=…``.

    `query` is normalised (`scope_query`); empty: every resource of the type.
    """

    context: str
    resource_type: str
    actions: str
    query: str = ""

    def covers(self, resource_type: str, action: str) -> bool:
        """Whether this scope grants `action` (one of c r u d s) on the type."""
        return action in self.actions and (
            self.resource_type == resource_type
            or (self.resource_type == "*" and not (self.context != "system" and resource_type in NAMED_ALONE))
        )

    def asks_no_more_than(self, other: Scope) -> bool:
        """Whether everything that fulfils the other's query fulfils this one's: its parts are among the other's."""
        return scope_query.parts(self.query) <= scope_query.parts(other.query)

    def __str__(self) -> str:
        return f"{self.context}/{self.resource_type}.{self.actions}" + (f"?{self.query}" if self.query else "")


def parse_scope(text: str) -> Scope | None:
    """Parse one resource scope; anything unknown is None and grants nothing."""
    match = _SCOPE.fullmatch(text)
    if match is None:
        return None
    context, resource_type, actions, query = match.groups()
    if query is None:
        actions = _V1.get(actions, actions)
        return Scope(context, resource_type, actions) if actions else None
    normal = scope_query.normalise(query)
    # Only scopes of version 2 have a query.
    return Scope(context, resource_type, actions, normal) if normal and actions and actions not in _V1 else None


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """Emergency access to one patient's record: what hides it is lifted for this `patient` (a logical id) alone.

    `id` names the occasion, to which its reason, its review and every AuditEvent of it belong.
    """

    id: str
    patient: str


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
    lenders: tuple[str, ...] = ()
    """Accounts whose permissions, lent to the subject, are among those of the token."""
    break_glass: BreakGlass | None = None
    """Emergency access under way. It lifts Consents and institution walls of its patient; it grants no scope."""
    every_institution: bool = False
    """Whether the account manages all institutions: then none bounds it."""

    @property
    def is_person(self) -> bool:
        """Whether a person (a Practitioner or Patient) stands behind the token, not a service."""
        return self.fhir_user is not None and self.fhir_user.split("/")[0] in ("Practitioner", "Patient")

    @property
    def is_bounded_by_institution(self) -> bool:
        """Whether the token reaches one institution's patients at most, where institutions divide the record.

        All do but those of accounts that manage institutions and those of services: a client's own token, with scopes
        of context ``system`` alone and nobody behind it.
        """
        is_service = self.fhir_user is None and self.subject == self.client_id
        return not self.every_institution and not (is_service and all(s.context == "system" for s in self.scopes))

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

    @property
    def is_patient(self) -> bool:
        """Whether a patient (or a relative) signed in, to whom only what a clinician verified is shown."""
        return self.fhir_user is not None and self.fhir_user.split("/")[0] in ("Patient", "RelatedPerson")

    def granted(self, resource_type: str, action: str) -> tuple[Scope, ...]:
        """Return the scopes that grant an action; a patient scope without a patient to bind to grants nothing."""
        return tuple(
            scope
            for scope in self.scopes
            if (scope.covers(resource_type, action) or self._is_own_record(scope, action))
            and (scope.context != "patient" or self.patient is not None)
        )

    def _is_own_record(self, scope: Scope, action: str) -> bool:
        """Whether a scope is for all of the record of a patient who signed in: who saw it is part of that."""
        return scope.context == "patient" and scope.resource_type == "*" and action in scope.actions and self.is_patient

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
        granted = self.granted(resource_type, action)
        if not granted:
            raise ForbiddenError(f"The token has no scope for {resource_type}.{action}")
        whole = [scope for scope in granted if not scope.query]
        if any(scope.context in ("user", "system") for scope in whole):
            return Reach.EVERYTHING
        return Reach.COMPARTMENT if whole else Reach.RESTRICTED

    def restrictions(self, resource_type: str, action: str) -> tuple[str, ...] | None:
        """Return the queries one of which has to be fulfilled, or None: a scope without a query covers it.

        Raises
        ------
        ForbiddenError
            No scope grants it.
        """
        if self.reach(resource_type, action) is not Reach.RESTRICTED:
            return None
        return tuple(dict.fromkeys(scope.query for scope in self.granted(resource_type, action)))

    def require_whole_type(self, resource_type: str, action: str) -> None:
        """Refuse where no query can be asked: a granular scope grants nothing there.

        Raises
        ------
        ForbiddenError
            No scope, or only granular ones, grant it.
        """
        if self.reach(resource_type, action) is Reach.RESTRICTED:
            raise ForbiddenError(f"A granular scope for {resource_type}.{action} does not suffice here")

    def covers(self, other: AccessContext) -> bool:
        """Whether this token reaches everything that another's resource scopes reach, in the same patient's record."""
        if other.has_scope(ADMINISTRATOR) and not self.has_scope(ADMINISTRATOR):
            return False
        if self.is_patient and not other.is_patient:
            return False
        asked = {
            (scope, action)
            for scope in other.scopes
            for action in scope.actions
            if scope.context != "patient" or other.patient is not None  # Else it reached nothing.
        }
        return all(self._covers(other, *one) for one in asked)

    def _covers(self, other: AccessContext, asked: Scope, action: str) -> bool:
        return any(
            own.asks_no_more_than(asked)
            and (own.context != "patient" or (asked.context == "patient" and self.patient == other.patient))
            for own in self.granted(asked.resource_type, action)
        )


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Parse a space-separated scope string, keeping the resource scopes that are understood."""
    return tuple(scope for part in text.split() if (scope := parse_scope(part)) is not None)
