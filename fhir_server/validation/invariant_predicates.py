"""Constraints that ordinary resources meet all the time, written by hand: true proves that the constraint is met.

https://hl7.org/fhir/R4/datatypes.html, https://hl7.org/fhir/R4/domainresource.html#invs. What these do not prove is
decided by the FHIRPath interpreter; a test holds each against it over all official examples.
"""

from __future__ import annotations

from typing import Any

from fhir_server.fhirpath.narrative import read_narrative
from fhir_server.fhirpath.predicates import Predicate

_DATE = 10
_SECONDS = 19


def not_later(first: str, second: str) -> Predicate:
    """Two dates in order, or one of them missing."""

    def predicate(element: dict[str, Any], resource: dict[str, Any]) -> bool:
        start, end = element.get(first), element.get(second)
        if start is None or end is None or start == end:
            return True
        if len(start) != len(end):
            return False
        if len(start) <= _DATE:
            return bool(start < end)
        # Same offset: the texts have the order of the times, up to whole seconds.
        same = start[-6:] == end[-6:] and start[-6] in "+-" if start[-1] != "Z" else end[-1] == "Z"
        return bool(same and start[:_SECONDS] < end[:_SECONDS])

    return predicate


def range_in_order(element: dict[str, Any], resource: dict[str, Any]) -> bool:
    """rng-2: the same unit, and low is not above high."""
    low, high = element.get("low"), element.get("high")
    if low is None or high is None:
        return True
    if any(low.get(name) != high.get(name) for name in ("unit", "code", "system")):
        return False
    return bool(low["value"] <= high["value"]) if "value" in low and "value" in high else False


def points_inside(element: dict[str, Any], resource: dict[str, Any]) -> bool:
    """ref-1: ``#id`` is the id of a contained resource, ``#`` the container.

    Whether there is such an id, `fhir_server.validation.contained_rules` decides.
    """
    reference = element.get("reference")
    if reference is None:
        return "_reference" not in element
    return not reference.startswith("#") or reference == "#"


def contained_are_referenced(element: dict[str, Any], resource: dict[str, Any]) -> bool:
    """dom-3: each contained resource is the target of a `reference` outside, or refers to its container."""
    contained = element.get("contained")
    if contained is None:
        return True
    found: set[str] = set()
    _collect(element, found)
    for inner in contained:
        own: set[str] = set()
        if f"#{inner.get('id')}" not in found:
            _collect(inner, own)
            if "#" not in own:
                return False
    return True


def _collect(value: Any, found: set[str]) -> None:
    if type(value) is dict:
        reference = value.get("reference")
        if type(reference) is str:
            found.add(reference)
        for item in value.values():
            if type(item) is dict or type(item) is list:
                _collect(item, found)
    elif type(value) is list:
        for item in value:
            _collect(item, found)


def _only_in(member: str, types: frozenset[str]) -> Predicate:
    def predicate(element: dict[str, Any], resource: dict[str, Any]) -> bool:
        expected = element["type"] in types
        return all((member in entry) is expected for entry in element.get("entry", ()))

    return predicate


def full_urls_are_unique(element: dict[str, Any], resource: dict[str, Any]) -> bool:
    """bdl-7: no two entries have the same fullUrl (and version)."""
    urls = [entry["fullUrl"] for entry in element.get("entry", ()) if "fullUrl" in entry]
    return len(urls) == len(set(urls))


def cardinality_in_order(element: dict[str, Any], resource: dict[str, Any]) -> bool:
    """eld-2: min is not above max."""
    least, most = element.get("min"), element.get("max")
    return least is None or most is None or most == "*" or (len(most) < 9 and most.isdecimal() and least <= int(most))


def is_maximum(value: Any, resource: dict[str, Any]) -> bool:
    """eld-3, on the text itself: a whole number or ``*``."""
    return bool(value == "*" or (len(value) < 9 and value.isascii() and value.isdecimal()))


def is_allowed_markup(div: Any, resource: dict[str, Any]) -> bool:
    """txt-1, on the text itself."""
    return read_narrative(div).is_allowed


def has_text(div: Any, resource: dict[str, Any]) -> bool:
    """txt-2, on the text itself."""
    return read_narrative(div).has_content


PREDICATES: dict[tuple[str, str], Predicate] = {
    ("Period", "per-1"): not_later("start", "end"),
    ("Task", "inv-1"): not_later("authoredOn", "lastModified"),
    ("MedicationDispense", "mdd-1"): not_later("whenPrepared", "whenHandedOver"),
    ("Range", "rng-2"): range_in_order,
    ("Reference", "ref-1"): points_inside,
    ("ElementDefinition", "eld-2"): cardinality_in_order,
    ("ElementDefinition.max", "eld-3"): is_maximum,
    ("Narrative.div", "txt-1"): is_allowed_markup,
    ("Narrative.div", "txt-2"): has_text,
    ("*", "dom-3"): contained_are_referenced,
    ("Bundle", "bdl-3"): _only_in("request", frozenset(("batch", "transaction", "history"))),
    ("Bundle", "bdl-4"): _only_in("response", frozenset(("batch-response", "transaction-response", "history"))),
    ("Bundle", "bdl-7"): full_urls_are_unique,
}
"""Type (``*``: every DomainResource) and key → predicate."""
