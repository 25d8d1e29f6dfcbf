"""From a token to what a query may see: scopes decide the type, the compartment becomes a condition of the query.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from __future__ import annotations

from fhir_server.search.conditions import AnyPosting, Condition
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import patient_base
from foramen.kernel.access_context import AccessContext, Reach
from foramen.kernel.errors import ForbiddenError


class Access:
    """What one caller may do. Without a context there is no `Access`, and nothing can be asked."""

    def __init__(self, context: AccessContext) -> None:
        self.context = context

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
        return None if key is None else AnyPosting((patient_base(resource_type) ^ key,))

    def may(self, resource_type: str, action: str) -> bool:
        """Whether any scope grants the action on this type."""
        try:
            self.context.reach(resource_type, action)
        except ForbiddenError:
            return False
        return True
