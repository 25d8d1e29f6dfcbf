"""From a token to what a query may see: scopes decide the type, the compartment becomes a condition of the query.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhir_server.access.consent import ConsentPolicy
from fhir_server.search.conditions import AllOf, AnyPosting, Condition
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import patient_base
from foramen.kernel.access_context import AccessContext, Reach
from foramen.kernel.errors import ForbiddenError

if TYPE_CHECKING:
    from fhir_server.store.changes import Stored


class Access:
    """What one caller may do. Without a context there is no `Access`, and nothing can be asked.

    `consent` is what patients' Consents hide from this caller, None when they hide nothing.
    """

    def __init__(self, context: AccessContext, consent: ConsentPolicy | None = None) -> None:
        self.context = context
        self.consent = consent

    def compartment_key(self, resource_type: str, action: str) -> int | None:
        """Return the key of the Patient whose record bounds this interaction, or None when nothing bounds it.

        Raises
        ------
        ForbiddenError
            No scope grants the action on this type.
        """
        if self.context.reach(resource_type, action) is Reach.EVERYTHING:
            return None
        assert self.context.patient is not None  # noqa: S101 - reach() refuses a patient scope without a patient
        return resource_key("Patient", self.context.patient)

    def condition(self, resource_type: str, action: str) -> Condition | None:
        """Return the condition that every query on this type must also fulfil, or None when all may be seen."""
        key = self.compartment_key(resource_type, action)
        bound = None if key is None else AnyPosting((patient_base(resource_type) ^ key,))
        if self.consent is None:
            return bound
        open_records = self.consent.condition(resource_type)
        if bound is None or open_records is None:
            return bound or open_records
        return AllOf((bound, open_records))

    def hides(self, stored: Stored) -> bool:
        """Whether a Consent hides this version, found by its id, from the caller."""
        return self.consent is not None and self.consent.hides(stored)

    def hidden_patients(self, resource_type: str) -> frozenset[int]:
        """Keys of the patients whose resources of this type a history leaves out."""
        return self.consent.hidden_patients(resource_type) if self.consent is not None else frozenset()

    def may(self, resource_type: str, action: str) -> bool:
        """Whether any scope grants the action on this type."""
        try:
            self.context.reach(resource_type, action)
        except ForbiddenError:
            return False
        return True
