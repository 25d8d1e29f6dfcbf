"""What patients refuse: active privacy Consents, read into rules, and the rules as conditions of a caller's queries.

https://hl7.org/fhir/R4/consent.html (scope `patient-privacy`, `provision` of type deny, and permits nested in it)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from fhir_server.model.references import normalise_reference
from fhir_server.search.conditions import AllOf, AnyOf, AnyPosting, Condition
from fhir_server.search.dates import BEGINNING, END, date_range, period_range
from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import patient_base, resource_types, type_parameters
from fhir_server.search.values import token_hashes
from foramen.kernel.access_context import REGISTERED_BY_GATEWAY
from foramen.kernel.consent_caller import Caller

if TYPE_CHECKING:
    from fhir_server.store.changes import Stored

_SCOPE = "patient-privacy"
_TYPES = "http://hl7.org/fhir/resource-types"
_MAX_NESTING = 3
_ANNOTATIONS = frozenset({"id", "extension"})
"""Change the meaning of nothing (https://hl7.org/fhir/R4/extensibility.html); a modifierExtension may."""
_PERMIT = _ANNOTATIONS | {"type", "period", "actor", "class", "securityLabel"}
"""Elements of a permit that are read; what any other says would limit it."""
_ACTOR = _ANNOTATIONS | {"role", "reference"}
_PERIOD = _ANNOTATIONS | {"start", "end"}


class ConsentPolicy(Protocol):
    """What consents hide from one caller. `Access` asks it in every query; None instead of it hides nothing."""

    def condition(self, resource_type: str) -> Condition | None:
        """Return a condition that every query of the caller on this type must also fulfil, or None."""

    def hides(self, stored: Stored) -> bool:
        """Whether the caller may not see this version, which was found by its id."""

    def hidden_patients(self, resource_type: str) -> frozenset[int]:
        """Keys of the patients of whose resources of this type some are hidden (histories leave all of them out)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Whom and what a provision speaks of; an empty set stands for all."""

    actors: frozenset[str]
    types: frozenset[str]
    labels: frozenset[tuple[str, str]]
    begin: float = BEGINNING
    end: float = END


@dataclass(frozen=True, slots=True)
class Denial:
    """One refusal of a patient, and the permits nested in it."""

    patient: str
    limits: Limits
    permits: tuple[Limits, ...] = ()

    def with_people(self, people: Mapping[str, str]) -> Denial:
        """Return the same denial, its PractitionerRoles joined by the practitioners they speak of."""
        actors = self.limits.actors | {people[name] for name in self.limits.actors if name in people}
        return replace(self, limits=replace(self.limits, actors=actors))


def denials_of(consent: dict[str, Any], own_url: str) -> list[Denial]:
    """Return what a Consent refuses: nothing unless it is active, of scope patient-privacy, and denies."""
    reference = (consent.get("patient") or {}).get("reference")
    if consent.get("status") != "active" or _SCOPE not in _codes(consent.get("scope")) or not reference:
        return []
    patient = normalise_reference(reference, own_url)
    found: list[Denial] = []
    _read(consent.get("provision") or {}, patient, own_url, found, 0)
    return found


def _read(provision: dict[str, Any], patient: str, own_url: str, found: list[Denial], depth: int) -> None:
    nested = provision.get("provision") or []
    if provision.get("type") == "deny":
        permits = (item for item in nested if item.get("type") == "permit" and _is_understood(item))
        found.append(Denial(patient, _limits(provision, own_url), tuple(_limits(item, own_url) for item in permits)))
    elif depth < _MAX_NESTING:
        for item in nested:
            _read(item, patient, own_url, found, depth + 1)


def _limits(provision: dict[str, Any], own_url: str) -> Limits:
    """Read whom and what a provision speaks of. A limit that cannot be read whole is none: a denial then hides more."""
    actors, classes, labels = (provision.get(name) or [] for name in ("actor", "class", "securityLabel"))
    named = {normalise_reference(_literal(actor), own_url) for actor in actors} if all(map(_literal, actors)) else set()
    types = {item["code"] for item in classes} if all(map(_is_type, classes)) else set()
    known = all(label.get("code") for label in labels)
    coded = {(label.get("system") or "", label["code"].casefold()) for label in labels} if known else set()
    low, high = period_range(provision.get("period") or {}) or (BEGINNING, END)
    return Limits(frozenset(named), frozenset(types), frozenset(coded), low, high)


def _is_understood(permit: dict[str, Any]) -> bool:
    """Whether all that limits a permit is read: what is not read would make it permit more than the patient said."""
    period: dict[str, Any] = permit.get("period") or {}
    return (
        _only(permit, _PERMIT)
        and all(_only(actor, _ACTOR) and _literal(actor) for actor in permit.get("actor") or [])
        and all(map(_is_type, permit.get("class") or []))
        and _only(period, _PERIOD)
        and all(date_range(period[name]) is not None for name in ("start", "end") if period.get(name))
    )


def _only(element: dict[str, Any], names: frozenset[str]) -> bool:
    return names.issuperset(name for name, value in element.items() if value not in (None, [], {}))


def _literal(actor: dict[str, Any]) -> str:
    """Return the reference by which an actor is named, "" when only an identifier or a text names them."""
    return (actor.get("reference") or {}).get("reference") or ""


def _is_type(coding: dict[str, Any]) -> bool:
    return coding.get("system") == _TYPES and coding.get("code") in resource_types()


def _codes(concept: dict[str, Any] | None) -> set[str]:
    return {coding.get("code", "") for coding in (concept or {}).get("coding") or []}


class DenialPolicy:
    """The denials that concern one caller, as conditions."""

    def __init__(self, denials: Iterable[Denial], caller: Caller, now: float) -> None:
        names, beside = caller.names, frozenset({"AuditEvent"} if caller.audits else ())
        beside |= REGISTERED_BY_GATEWAY if caller.keeps_pixels else frozenset()
        self._rules: list[tuple[int, frozenset[str], frozenset[str], frozenset[tuple[str, str]]]] = []
        for denial in denials:
            limits = denial.limits
            if denial.patient in names or denial.patient == caller.opened or not _concerns(limits, names, now):
                continue  # Nobody is shut out of their own record; nor is who breaks the glass, out of that one.
            permits = [permit for permit in denial.permits if _concerns(permit, names, now) and not permit.labels]
            if any(not permit.types for permit in permits):
                continue
            lifted = beside | frozenset(name for permit in permits for name in permit.types)
            self._rules.append((hash64(denial.patient), limits.types, lifted, limits.labels))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def _on(self, resource_type: str) -> Iterable[tuple[int, frozenset[tuple[str, str]]]]:
        # A Binary in a patient's record names the Patient: who may not see that does not see this.
        names = ("Binary", "Patient") if resource_type == "Binary" else (resource_type,)
        for patient, types, lifted, labels in self._rules:
            if any((not types or name in types) and name not in lifted for name in names):
                yield patient, labels

    def condition(self, resource_type: str) -> Condition | None:
        """Return: in none of the records that are closed, and in none half closed with one of its labels."""
        base = patient_base(resource_type)
        found = list(self._on(resource_type))
        closed = {patient for patient, labels in found if not labels}
        parts: list[Condition] = []
        if closed:
            parts.append(AnyPosting(tuple(base ^ patient for patient in sorted(closed)), negated=True))
        for patient, labels in found:
            if patient not in closed:
                outside = AnyPosting((base ^ patient,), negated=True)
                parts.append(AnyOf((outside, AnyPosting(label_hashes(resource_type, labels), negated=True))))
        return _all_of(parts)

    def hides(self, stored: Stored) -> bool:
        """Whether this version lies in a closed record, or in a half closed one with one of its labels."""
        hidden = [labels for patient, labels in self._on(stored.resource_type) if patient in stored.patients]
        if not hidden or not all(hidden):
            return bool(hidden)
        security = (stored.data().get("meta") or {}).get("security") or []
        own = {(label.get("system") or "", label.get("code", "").casefold()) for label in security}
        return any(not labels.isdisjoint(own) for labels in hidden)

    def hidden_patients(self, resource_type: str) -> frozenset[int]:
        """Keys of the patients of whose resources of this type some are hidden."""
        return frozenset(patient for patient, _ in self._on(resource_type))


def _concerns(limits: Limits, names: frozenset[str], now: float) -> bool:
    return limits.begin <= now < limits.end and (not limits.actors or not limits.actors.isdisjoint(names))


def label_hashes(resource_type: str, labels: frozenset[tuple[str, str]]) -> tuple[int, ...]:
    """Return the index hashes by which a resource type carries any of these security labels (system, code)."""
    parameter = type_parameters(resource_type).parameters["_security"]
    hashes = [token_hashes(system or None, code, exact=False)[1] for system, code in sorted(labels)]
    return tuple(base ^ item for base in parameter.bases() for item in hashes)


def _all_of(parts: list[Condition]) -> Condition | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))
