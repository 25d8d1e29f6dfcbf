"""Institutions divide the record: a person sees the records of the patients whom their own institution manages.

Where `FORAMEN_INSTITUTIONS` is ``separate``, a resource in patients' compartments is seen by who belongs to the
`Patient.managingOrganization` of one of these patients (ADR 0030). What lies in no compartment stays visible, but for
AuditEvents, which name what others looked at, and for the four types that tell of a patient outside all compartments
(`OUTSIDE`). A token without an institution sees nothing of patients; a patient's own record and that of a break-glass
are reached in any case. https://hl7.org/fhir/R4/patient-definitions.html#Patient.managingOrganization
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fhir_server.access.compartments import patient_compartment
from fhir_server.access.security_context import BINARY, security_context
from fhir_server.search.conditions import (
    AnyOf,
    AnyPosting,
    Chained,
    Condition,
    InInstitution,
    Nothing,
    Present,
    Selection,
)
from fhir_server.search.hashing import hash64, resource_key
from fhir_server.search.index import references_of
from fhir_server.search.parameters import Parameter, r4_parameters, resource_types
from fhir_server.store.institutions import managed_patients
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import ForbiddenError

if TYPE_CHECKING:
    from fhir_server.store.changes import Change, Stored

SEPARATE = "separate"
OUTSIDE = frozenset({"Contract", "Device", "GuidanceResponse", "Task"})
"""Types in no patient's compartment whose `patient` parameter names one all the same."""
_AUDIT = "AuditEvent"
_PATIENT = "Patient"


@lru_cache(maxsize=1)
def walled_types() -> frozenset[str]:
    """Types that may tell of a patient."""
    members = {name for name, codes in patient_compartment().items() if codes}
    return frozenset(members | OUTSIDE | {_PATIENT, BINARY})


def wall_of(context: AccessContext, institutions: str, own_url: str) -> Wall | None:
    """Return what bounds a caller, None: nothing does.

    Parameters
    ----------
    institutions : the setting, ``shared`` or ``separate``; what is neither bounds as ``separate`` does
    """
    if institutions == "shared" or not context.is_bounded_by_institution:
        return None
    return Wall(context, own_url)


class Wall:
    """The wall as one caller meets it; what it was told of patients (`learn`) is good for one request."""

    def __init__(self, context: AccessContext, own_url: str) -> None:
        self._own_url = own_url
        reached = {context.break_glass.patient} if context.break_glass is not None else set()
        kind, _, name = (context.fhir_user or "").partition("/")
        if kind == _PATIENT and name:
            reached.add(name)  # Nobody is shut out of their own record.
        self.reached = frozenset(resource_key(_PATIENT, patient) for patient in reached)
        self.managed = managed_by(context.institution) if context.institution else None
        self._inside: dict[int, bool] = {}

    def condition(self, resource_type: str, asked: int | None = None) -> Condition | None:
        """Return what every query of the caller on this type must also fulfil, or None.

        Parameters
        ----------
        asked : key of the Patient in whose record every match lies already
        """
        if resource_type not in walled_types():
            return None
        managed = () if self.managed is None else (self.managed,)
        if resource_type == _PATIENT and not self.reached:
            return AnyPosting(managed) if managed else Nothing()
        found = InInstitution(managed, tuple(sorted(self.reached)), resource_type not in (_AUDIT, _PATIENT))
        if resource_type in OUTSIDE:
            return self._outside(resource_type)
        return found if asked is None else InInstitution(managed, found.patients, found.beyond, (asked,))

    def _outside(self, resource_type: str) -> Condition:
        parameter = _naming(resource_type)
        parts: list[Condition] = [Present(1 << parameter.bit, wanted=False)]
        bases = parameter.bases()
        if self.managed is not None:
            target = Selection(_PATIENT, (AnyPosting((self.managed,)),))
            parts.append(Chained(bases, (target,), code=parameter.code, own_url=self._own_url))
        if self.reached:
            parts.append(AnyPosting(tuple(base ^ key for base in bases for key in sorted(self.reached))))
        return AnyOf(tuple(parts))

    def of_versions(self, types: Iterable[str]) -> dict[str, InInstitution]:
        """Return what the patients of versions of these types must fulfil, old ones too; `OUTSIDE` has to be read."""
        managed = () if self.managed is None else (self.managed,)
        reached = tuple(sorted(self.reached))
        return {
            name: InInstitution(managed, reached, name not in (_AUDIT, _PATIENT))
            for name in types
            if name in walled_types() - OUTSIDE
        }

    def of_exported(self, resource_type: str) -> InInstitution | None:
        """Return what older versions must fulfil that an export would show; of `OUTSIDE` none is shown."""
        if resource_type in OUTSIDE:
            return InInstitution((), beyond=False)
        return self.of_versions((resource_type,)).get(resource_type)

    async def learn(self, connection: Any, keys: Iterable[int]) -> None:
        """Look up the institution of patients: of whom it was not looked up, nothing is shown."""
        asked = set(keys)
        inside = await managed_patients(connection, asked, self.managed) if asked and self.managed is not None else ()
        self._inside.update({key: key in inside or key in self.reached for key in asked})

    async def learn_of(self, connection: Any, versions: Iterable[Stored | None]) -> None:
        """Look up the institutions of the patients to whom these versions belong."""
        await self.learn(connection, {key for stored in versions if stored is not None for key in self.keys_of(stored)})

    def shows_one_of(self, keys: Iterable[int]) -> bool:
        """Whether one of these patients belongs to the institution, as far as `learn` was told."""
        return any(self._inside.get(key, False) for key in keys)

    def hides(self, stored: Stored) -> bool:
        """Whether a version lies in records of other institutions, as far as `learn` was told."""
        if stored.resource_type not in walled_types():
            return False
        keys = self.keys_of(stored)
        if not keys:
            return stored.resource_type == _AUDIT or (stored.resource_type in OUTSIDE and self._names_nobody(stored))
        return not self.shows_one_of(keys)

    def keys_of(self, stored: Stored) -> tuple[int, ...]:
        """Return the keys of the patients, one of whom has to be visible for the version to be."""
        if stored.resource_type == BINARY and stored.content is not None:  # However it was indexed once.
            context = security_context(stored.data(), self._own_url, resource_types())
            return () if context is None else (hash64(context[1]),)
        if stored.resource_type not in OUTSIDE:
            return stored.patients
        named = references_of(stored.data(), _naming(stored.resource_type), self._own_url)
        halves = [reference.partition("/") for reference in named]
        return tuple(resource_key(_PATIENT, name) for kind, _, name in halves if kind == _PATIENT)

    def _names_nobody(self, stored: Stored) -> bool:
        """Whether it names somebody who is no Patient here (a deleted version may have done so)."""
        if stored.content is None:
            return True
        return bool(references_of(stored.data(), _naming(stored.resource_type), self._own_url))

    def bounds_writing(self, resource_type: str) -> bool:
        """Whether an id may be taken by what the caller does not see: then no id can be chosen."""
        return resource_type in walled_types()

    async def check_writes(self, connection: Any, changes: Iterable[Change]) -> None:
        """Refuse new versions in records of other institutions; Patients of the same transaction count as written.

        Raises
        ------
        ForbiddenError
            403.
        """
        new = [change for change in changes if change.content is not None and change.resource_type in walled_types()]
        keys = {id(change): self.keys_of(change.stored()) for change in new}
        await self.learn(connection, {key for found in keys.values() for key in found})
        for change in new:
            if change.resource_type == _PATIENT and change.values is not None:
                inside = self.managed is not None and self.managed in change.values.postings
                self._inside[change.key] = inside or change.key in self.reached
        for change in new:
            found = keys[id(change)]
            unknown = not found and change.resource_type != _AUDIT and self.hides(change.stored())
            if unknown or not all(self._inside[key] for key in found):
                raise ForbiddenError("The token may write into records of its own institution's patients only")


def managed_by(institution: str) -> int:
    """Return the posting of the Patients whom an Organization (logical id) manages."""
    (base,) = r4_parameters(_PATIENT).parameters["organization"].bases()
    return base ^ resource_key("Organization", institution)


def _naming(resource_type: str) -> Parameter:
    return r4_parameters(resource_type).parameters["patient"]
