"""Generate `fhir_server/model/r4_elements.json`: required bindings, reference targets, dates, summary elements.

https://hl7.org/fhir/R4/terminologies.html#required, https://hl7.org/fhir/R4/search.html#summary
"""

from __future__ import annotations

from typing import Any

from fhir_server.generate.definitions import Definitions, Element, json_names

_DATES = {"date": "d", "dateTime": "t", "instant": "i"}
# Value sets over code systems that are not enumerated (all media types, languages, currencies, units).
_MAX_CODES = 400
# The package widens these targets; here they are as in R4.
_R4_TARGETS = {
    "AuditEvent.source.observer": [
        "Device",
        "Organization",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "RelatedPerson",
    ],
    "MeasureReport.subject": [
        "Device",
        "Group",
        "Location",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "RelatedPerson",
    ],
    "ResearchStudy.site": ["Location"],
}
# The package binds this to the value set of R5.
_R4_BINDINGS = {"DetectedIssue.status": "http://hl7.org/fhir/ValueSet/observation-status"}


def build(definitions: Definitions) -> dict[str, Any]:
    """Return type → JSON name → rule.

    A rule is ``[kind, value]``: ``c`` code bound to value-set index, ``r`` Reference to these types (empty: any),
    ``d``/``t``/``i`` date, dateTime, instant, ``o`` object of a type, ``*`` any resource.
    """
    value_sets: dict[str, int] = {}
    codes: list[list[str]] = []
    tables: dict[str, dict[str, list[Any]]] = {}
    for type_name, elements in definitions.elements.items():
        table: dict[str, list[Any]] = {}
        for element in elements.values():
            for json_name, kind in json_names(element):
                override = _R4_BINDINGS.get(f"{type_name}.{json_name}")
                if override is not None:
                    element.binding = ("required", override)
                rule = _rule(definitions, element, kind, value_sets, codes)
                if rule is not None and f"{type_name}.{json_name}" in _R4_TARGETS:
                    rule = ["r", _R4_TARGETS[f"{type_name}.{json_name}"]]
                if rule is not None:
                    table[json_name] = rule
        tables[type_name] = table
    _prune(tables)
    return {
        "codes": codes,
        "types": tables,
        "summary": {
            name: [
                json_name for e in definitions.elements[name].values() if e.summary for json_name, _ in json_names(e)
            ]
            for name in definitions.resource_types
        },
        "mandatory": {
            name: [
                json_name for e in definitions.elements[name].values() if e.mandatory for json_name, _ in json_names(e)
            ]
            for name in definitions.resource_types
        },
    }


def _rule(
    definitions: Definitions, element: Element, kind: str, value_sets: dict[str, int], codes: list[list[str]]
) -> list[Any] | None:
    if kind in _DATES:
        return [_DATES[kind], 0]
    if kind == "Reference":
        targets = element.targets.get("Reference", [])
        return ["r", [] if "Resource" in targets else targets]
    if kind in ("Resource", "DomainResource"):
        return ["*", 0]
    if kind == "code" and element.binding and element.binding[0] == "required":
        url = element.binding[1]
        if url not in value_sets:
            expansion = expand(definitions, url)
            if expansion is None or len(expansion) > _MAX_CODES:
                return None
            value_sets[url] = len(codes)
            codes.append(sorted(expansion))
        return ["c", value_sets[url]]
    if kind in definitions.elements and kind[0].isupper() and kind not in ("Extension", "Narrative"):
        return ["o", kind]
    return None


def expand(definitions: Definitions, url: str) -> set[str] | None:
    """Codes of a value set, or None when it is not enumerable here (filters, external systems)."""
    value_set = definitions.value_sets.get(url)
    if value_set is None or "exclude" in value_set.get("compose", {}):
        return None
    found: set[str] = set()
    for include in value_set.get("compose", {}).get("include", []):
        if include.get("filter"):
            return None
        for inner in include.get("valueSet", []):
            part = expand(definitions, inner)
            if part is None:
                return None
            found |= part
        if "concept" in include:
            found |= {concept["code"] for concept in include["concept"]}
        elif "system" in include:
            system = definitions.code_systems.get(include["system"])
            if system is None or system.get("content") != "complete":
                return None
            found |= set(_codes(system.get("concept", [])))
    return found or None


def _codes(concepts: list[dict[str, Any]]) -> list[str]:
    found = []
    for concept in concepts:
        found.append(concept["code"])
        found += _codes(concept.get("concept", []))
    return found


def _prune(tables: dict[str, dict[str, list[Any]]]) -> None:
    """Drop objects below which nothing is checked, so that the walk at run time skips them."""
    changed = True
    while changed:
        changed = False
        for table in tables.values():
            for name, rule in list(table.items()):
                if rule[0] == "o" and not tables.get(rule[1]):
                    del table[name]
                    changed = True
    for name in [name for name, table in tables.items() if not table]:
        del tables[name]
