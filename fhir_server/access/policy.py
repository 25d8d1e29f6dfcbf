"""From a token to what a query may see: scopes decide the type; compartment, query, release state become conditions.

`Access.condition` bounds every selection; `Access.hides` asks the same of a version that was found by its id.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from fhir_server.access.consent import ConsentPolicy
from fhir_server.access.evaluation import Version, fulfils
from fhir_server.access.granular import Granted
from fhir_server.access.institutions import OUTSIDE, Wall
from fhir_server.access.release import has_no_tag, released
from fhir_server.access.security_context import BINARY, UNKNOWN, marker, security_context
from fhir_server.search.conditions import AllOf, AnyOf, AnyPosting, Condition
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.parameters import patient_base, resource_types
from foramen.kernel.access_context import NAMED_ALONE, AccessContext, Reach, Scope
from foramen.kernel.errors import ForbiddenError

if TYPE_CHECKING:
    from fhir_server.access.restriction import Restriction
    from fhir_server.store.changes import Change, Stored


@lru_cache(maxsize=4096)
def _granted_whole(
    scopes: tuple[Scope, ...], patient: str | None, fhir_user: str | None, resource_type: str, action: str
) -> Granted:
    """Return what scopes without queries grant: the same for every request of a token."""
    return Granted(AccessContext("", "", scopes, patient=patient, fhir_user=fhir_user), resource_type, action, "")


class Access:
    """What one caller may do. Without a context there is no `Access`, and nothing can be asked.

    `consent` is what patients' Consents hide from this caller, None when they hide nothing. `own_url` is the base of
    this server's references; without it a granular scope grants nothing.
    """

    def __init__(
        self,
        context: AccessContext,
        consent: ConsentPolicy | None = None,
        own_url: str = "",
        restriction: Restriction | None = None,
        wall: Wall | None = None,
    ) -> None:
        self.context = context
        self.consent = consent
        self.restriction = restriction
        self.wall = wall
        self.own_url = own_url
        self._granted: dict[tuple[str, str], Granted] = {}

    def granted(self, resource_type: str, action: str) -> Granted:
        """Return what the scopes grant.

        Raises
        ------
        ForbiddenError
            No scope grants the action on this type.
        """
        found = self._granted.get((resource_type, action))
        if found is None:
            found = self._grant(resource_type, action)
            self._granted[resource_type, action] = found
        return found

    def _grant(self, resource_type: str, action: str) -> Granted:
        context = self.context
        if any(scope.query for scope in context.scopes):  # Its meaning follows the search parameters in force.
            return Granted(context, resource_type, action, self.own_url)
        fhir_user = context.fhir_user if context.is_patient else None  # Of others the scopes alone decide.
        return _granted_whole(context.scopes, context.patient, fhir_user, resource_type, action)

    def compartment_key(self, resource_type: str, action: str) -> int | None:
        """Return the key of the Patient whose record bounds this interaction, or None when none does.

        A granular scope bounds it too: see `condition`, `hides` and `may_write`.

        Raises
        ------
        ForbiddenError
            No scope grants the action on this type.
        """
        return self.granted(resource_type, action).patient

    def condition(self, resource_type: str, action: str) -> Condition | None:
        """Return the condition that every query on this type must also fulfil, or None when all may be seen."""
        found = tuple(rule for _, rule in self.rules(resource_type, action))
        return AllOf(found) if len(found) > 1 else found[0] if found else None

    def rules(self, resource_type: str, action: str) -> list[tuple[str, Condition]]:
        """Return what the condition is made of, each rule with its name.

        Raises
        ------
        ForbiddenError
            No scope grants the action on this type.
        """
        key = self.compartment_key(resource_type, action)
        parts: list[tuple[str, Condition | None]] = [
            ("patient compartment", None if key is None else AnyPosting((patient_base(resource_type) ^ key,))),
            ("institution", None if self.wall is None else self.wall.condition(resource_type, key)),
            *(("granular scope", part) for part in (self.granted(resource_type, action).condition(),)),
            ("release state", released(resource_type) if self.context.is_patient else None),
            ("security context", self._named_by_binaries() if resource_type == BINARY else None),
            ("consent", None if self.consent is None else self.consent.condition(resource_type)),
            ("restriction", None if self.restriction is None else self.restriction.condition(resource_type)),
        ]
        return [(name, part) for name, part in parts if part is not None]

    def hides(self, stored: Stored, action: str = "r") -> bool:
        """Whether this version, found by its id, is hidden.

        By the wall of the caller's institution (of what `learn` did not look up, everything is), by a Consent, by what
        a Binary's context names, by the query of a granular scope, or as no clinician verified
        it. What a deleted one was is not known any more: then queries and the release state hide it.
        """
        return (self.wall is not None and self.wall.hides(stored)) or self.hides_within(stored, action)

    async def learn(self, connection: Any, *versions: Stored | None) -> None:
        """Look up what `hides` will need to know: the institutions of the patients these versions belong to."""
        if self.wall is not None:
            await self.wall.learn_of(connection, versions)

    def hides_within(self, stored: Stored, action: str = "r") -> bool:
        """Whether this version is hidden, wherever its patients belong."""
        if self.restriction is not None and self.restriction.hides(stored):
            return True
        if stored.resource_type == BINARY and (self.consent is not None or self._closed_contexts):
            stored = self._named_again(stored)
        if self.consent is not None and self.consent.hides(stored):
            return True
        if stored.resource_type == BINARY and bool(self._closed_contexts) and self._context_hides(stored):
            return True
        asked = self.granted(stored.resource_type, action).condition()
        if asked is None and not self.context.is_patient:
            return False
        if stored.content is None:
            return True
        if asked is None and has_no_tag(stored.data()):
            return False
        version = Version.of_stored(stored, self.own_url)
        unreleased = self.context.is_patient and not fulfils(version, released(stored.resource_type))
        return unreleased or (asked is not None and not fulfils(version, asked))

    def looks_inside(self, resource_type: str, action: str) -> bool:
        """Whether it takes a look into each version of the type to tell if it is hidden (`hides`).

        Of a Binary what it names: versions of earlier times may have been indexed otherwise than today.
        """
        if resource_type == BINARY and (self.consent is not None or self._closed_contexts):
            return True
        return self.context.is_patient or self.is_restricted(resource_type, action)

    def looks_outside(self, resource_type: str) -> bool:
        """Whether each version has to be read to tell whose institution it belongs to: its patients do not say it."""
        return self.wall is not None and (resource_type in OUTSIDE or resource_type == BINARY)

    def sees_all(self, resource_type: str) -> bool:
        """Whether the scopes let every resource of the type be read."""
        return self._reach(resource_type, "r") is Reach.EVERYTHING

    def is_bounded(self, resource_type: str, action: str) -> bool:
        """Whether ids of the type may be taken by what the caller does not see, so that none can be chosen for new."""
        walled = self.wall is not None and self.wall.bounds_writing(resource_type)
        return walled or self.is_restricted(resource_type, action)

    def is_restricted(self, resource_type: str, action: str) -> bool:
        """Whether the query of a granular scope decides which resources of the type are granted.

        Raises
        ------
        ForbiddenError
            No scope grants the action on this type.
        """
        return self.granted(resource_type, action).is_restricted

    def check_write(self, change: Change, action: str) -> None:
        """Refuse a new version that lies outside what a granular scope grants.

        Raises
        ------
        ForbiddenError
            The token may not write this.
        """
        if self.restriction is not None:
            self.restriction.check_write(change)
        granted = self.granted(change.resource_type, action)
        if granted.is_restricted and not granted.may_write(change):
            raise ForbiddenError("The token may write only what the query of its scope selects")

    # The securityContext of a Binary

    @property
    def seen_contexts(self) -> list[str] | None:
        """Types of which the caller sees every resource a Binary may name; None: all. A history shows only these."""
        return sorted(resource_types() - self._closed_contexts) if self._closed_contexts else None

    @property
    def sees_own_patient(self) -> bool:
        """Whether the token names a Patient and lets that resource be seen."""
        return self._own_patient is not None

    @cached_property
    def _closed_contexts(self) -> frozenset[str]:
        closed = frozenset(name for name in resource_types() if not self._sees_context(name))
        # Who sees all but the audit trail sees whatever a Binary is about.
        return closed | {UNKNOWN} if closed - NAMED_ALONE else frozenset()

    def _sees_context(self, resource_type: str) -> bool:
        """Whether all resources of the type may be seen, or a patient's record is closed to what names the patient."""
        if self.consent is not None and resource_type != "Patient":
            return False
        return any(self._reach(resource_type, action) is Reach.EVERYTHING for action in "rs")

    def _reach(self, resource_type: str, action: str) -> Reach | None:
        try:
            return self.context.reach(resource_type, action)
        except ForbiddenError:
            return None

    @cached_property
    def _own_patient(self) -> int | None:
        """Key of the Patient whom the token names, when it lets that resource be seen."""
        sees = any(self._reach("Patient", action) in (Reach.EVERYTHING, Reach.COMPARTMENT) for action in "rs")
        return resource_key("Patient", self.context.patient) if sees and self.context.patient else None

    def _named_by_binaries(self) -> Condition | None:
        """Return: names nothing of a type that is closed, unless it names the caller's own patient."""
        if not self._closed_contexts:
            return None
        base = patient_base(BINARY)
        outside = AnyPosting(tuple(base ^ marker(name) for name in sorted(self._closed_contexts)), negated=True)
        if self._own_patient is None:
            return outside
        return AnyOf((AnyPosting((base ^ self._own_patient,)), outside))

    def _named_again(self, binary: Stored) -> Stored:
        """Return the version in the compartment of what its own content names, whatever it was indexed under."""
        if binary.content is None:  # A deleted one stays where it was; what that is, is not known any more.
            return binary
        named = security_context(binary.data(), self.own_url, resource_types())
        return binary._replace(patients=() if named is None else (hash64(named[1]),))

    def _context_hides(self, binary: Stored) -> bool:
        """Whether what the version names, its own content read again (`_named_again`), is closed."""
        if not binary.patients or self._own_patient in binary.patients:
            return False
        named = security_context(binary.data(), self.own_url, resource_types())
        return named is None or named[0] in self._closed_contexts

    def hidden_patients(self, resource_type: str) -> frozenset[int]:
        """Keys of the patients whose resources of this type a history leaves out."""
        policies = [policy for policy in (self.consent, self.restriction) if policy is not None]
        return frozenset().union(*(policy.hidden_patients(resource_type) for policy in policies))

    def may(self, resource_type: str, action: str) -> bool:
        """Whether any scope grants the action on this type."""
        try:
            self.granted(resource_type, action)
        except ForbiddenError:
            return False
        return True
