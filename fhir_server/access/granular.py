"""Granular SMART scopes as conditions: the query of a scope, read by the parser of every other search.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters

A query may name R4's search parameters of the type, `_id`, `_lastUpdated` and the other parameters of every resource,
with modifiers that look at the resource alone. Custom parameters (they may change, and their index may be incomplete),
chains, value sets and hierarchies are not understood, and what is not understood grants nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from fhir_server.access.evaluation import Version, can_be_asked, fulfils
from fhir_server.search.blind import BlindIndex
from fhir_server.search.conditions import AllOf, AnyOf, AnyPosting, Condition
from fhir_server.search.hashing import resource_key
from fhir_server.search.parameters import patient_base, r4_parameters, registry, resource_types
from fhir_server.search.parse import SearchParser
from fhir_server.settings import FhirSettings
from foramen.kernel import scope_query
from foramen.kernel.access_context import AccessContext, Scope
from foramen.kernel.errors import ForbiddenError, InteropError

if TYPE_CHECKING:
    from fhir_server.access.policy import Access
    from fhir_server.store.changes import Change

_OF_EVERY_TYPE = ("_id", "_lastUpdated")


def restriction(resource_type: str, query: str, own_url: str) -> Condition | None:
    """Return the condition of a query, or None when it is not understood for this type.

    Parameters
    ----------
    query : normalised, not empty
    own_url : base of this server's absolute references; without it nothing is understood
    """
    return _restriction(resource_type, query, own_url, registry().blind)


@lru_cache(maxsize=1024)
def _restriction(resource_type: str, query: str, own_url: str, _: BlindIndex | None) -> Condition | None:
    if not own_url or resource_type not in resource_types():
        return None
    known = r4_parameters(resource_type).parameters
    conditions: list[Condition] = []
    for name, value in scope_query.pairs_of(query):
        code = name.partition(":")[0]
        if code not in known and code not in _OF_EVERY_TYPE:
            return None
        try:
            condition = _parser(own_url).condition(resource_type, name, value)
        except InteropError:
            return None
        if not can_be_asked(condition):
            return None
        conditions.append(condition)
    return AllOf(tuple(conditions)) if len(conditions) > 1 else conditions[0]


class _Nobody:
    """Access of a parser whose parameters must not lead to other resources."""

    def condition(self, resource_type: str, action: str) -> Condition | None:
        raise ForbiddenError("A granular scope looks at its own resource only")


def _parser(own_url: str) -> SearchParser:
    access: Access = _Nobody()  # type: ignore[assignment]
    return SearchParser(FhirSettings.model_construct(), own_url, access)


class Granted:
    """The scopes of a token that grant one action on one type, as a condition.

    Raises
    ------
    ForbiddenError
        No scope grants it in a way that is understood.
    """

    def __init__(self, context: AccessContext, resource_type: str, action: str, own_url: str) -> None:
        self._type = resource_type
        self._patient = None if context.patient is None else resource_key("Patient", context.patient)
        self._scopes: list[tuple[Scope, Condition | None]] = []
        for scope in context.granted(resource_type, action):
            found = restriction(resource_type, scope.query, own_url) if scope.query else None
            if not scope.query or found is not None:
                self._scopes.append((scope, found))
        if not self._scopes:
            raise ForbiddenError(f"The token has no scope for {resource_type}.{action}")
        own = all(scope.context == "patient" for scope, _ in self._scopes)
        self.patient = self._patient if own else None
        """Key of the Patient in whose record all scopes stay; None: at least one does not."""
        whole = any(not scope.query and (own or scope.context != "patient") for scope, _ in self._scopes)
        self.is_restricted = not whole
        """Whether something but one compartment decides which resources of the type are granted."""

    def condition(self) -> Condition | None:
        """Return what the granted resources fulfil besides lying in the record of `patient`; None: nothing."""
        if not self.is_restricted:
            return None
        inside = self.patient is not None
        found = tuple(dict.fromkeys(self._one(scope, asked, inside=inside) for scope, asked in self._scopes))
        return found[0] if len(found) == 1 else AnyOf(found)

    def _one(self, scope: Scope, asked: Condition | None, *, inside: bool) -> Condition:
        bound = () if inside or scope.context != "patient" else (self._compartment(),)
        conditions = (*bound, *((asked,) if asked is not None else ()))
        return conditions[0] if len(conditions) == 1 else AllOf(conditions)

    def _compartment(self) -> Condition:
        assert self._patient is not None  # noqa: S101 - granted() leaves patient scopes without a patient out
        return AnyPosting((patient_base(self._type) ^ self._patient,))

    def may_write(self, change: Change) -> bool:
        """Whether one of the scopes grants this new version: within its query, and in no other patient's record."""
        version = Version.of_change(change)
        return version is not None and any(
            (scope.context != "patient" or self._is_own(change)) and (asked is None or fulfils(version, asked))
            for scope, asked in self._scopes
        )

    def _is_own(self, change: Change) -> bool:
        created_patient = change.resource_type == "Patient" and change.previous is None
        return not created_patient and set(change.patient_keys) == {self._patient}
