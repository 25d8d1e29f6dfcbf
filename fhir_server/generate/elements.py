"""Generate `fhir_server/model/r4_elements.json`: required bindings, reference targets, dates, ids, summary elements.

https://hl7.org/fhir/R4/terminologies.html#required, https://hl7.org/fhir/R4/search.html#summary
"""

from __future__ import annotations

from typing import Any

from fhir_server.generate.definitions import Definitions, Element, json_names

_DATES = {"date": "d", "dateTime": "t", "instant": "i"}
_VALUE_SET = "http://hl7.org/fhir/ValueSet/"
# Value sets over systems that nobody can list: the code is checked by its form.
_FORMS = {
    f"{_VALUE_SET}mimetypes": "mime",
    f"{_VALUE_SET}currencies": "currency",
    f"{_VALUE_SET}ucum-units": "ucum",
    f"{_VALUE_SET}languages": "language",
}
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
_R4_BINDINGS = {"DetectedIssue.status": f"{_VALUE_SET}observation-status"}
# The package has this in the form of R5; here it is as in R4.
_R4_ELEMENTS = {
    "EvidenceVariable.characteristic": (
        Element("extension", ["Extension"]),
        Element("modifierExtension", ["Extension"]),
        Element(
            "definition[x]",
            ["Reference", "canonical", "CodeableConcept", "Expression", "DataRequirement", "TriggerDefinition"],
            targets={"Reference": ["Group"]},
        ),
        Element("usageContext", ["UsageContext"]),
        Element("participantEffective[x]", ["dateTime", "Period", "Duration", "Timing"]),
        Element("timeFromStart", ["Duration"]),
        Element("groupMeasure", ["code"], binding=("required", f"{_VALUE_SET}group-measure")),
    )
}


class _Builder:
    """Collects the rules of all types and the value sets they name."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._value_sets: dict[str, int] = {}
        self._concept_sets: dict[str, int] = {}
        self.codes: list[list[str]] = []
        self.concepts: list[dict[str, list[str]]] = []

    def table(self, type_name: str) -> dict[str, list[Any]]:
        """Rules of one type: JSON name → rule."""
        table: dict[str, list[Any]] = {}
        for element in _R4_ELEMENTS.get(type_name) or self._definitions.elements[type_name].values():
            for json_name, kind in json_names(element):
                path = f"{type_name}.{json_name}"
                if path in _R4_BINDINGS:
                    element.binding = ("required", _R4_BINDINGS[path])
                rule = ["r", _R4_TARGETS[path]] if path in _R4_TARGETS else self._rule(path, element, kind)
                if rule is not None:
                    table[json_name] = rule
        if type_name in self._definitions.resource_types:
            table["id"] = ["n", 0]
        return table

    def _rule(self, path: str, element: Element, kind: str) -> list[Any] | None:
        if kind in _DATES:
            return [_DATES[kind], 0]
        if kind == "Reference":
            targets = element.targets.get("Reference", [])
            return ["r", [] if "Resource" in targets else targets]
        if kind in ("Resource", "DomainResource"):
            return ["*", 0]
        if path == "Extension.url":
            return ["w", 0]
        if element.binding is not None:
            bound = self._bound(element.binding, kind)
            if bound is not None:
                return bound
        if kind in self._definitions.elements and kind[0].isupper():
            return ["o", kind]
        return None

    def _bound(self, binding: tuple[str, str], kind: str) -> list[Any] | None:
        strength, url = binding
        if kind == "code" and url == f"{_VALUE_SET}languages":
            return ["f", "language"]  # Preferred, but never outside all languages (its maxValueSet).
        if strength != "required":
            return None
        if url in _FORMS and kind in ("code", "CodeableConcept"):
            return ["f" if kind == "code" else "g", _FORMS[url]]
        if kind == "code":
            return self._code_rule(url)
        return self._concept_rule(url) if kind == "CodeableConcept" else None

    def _code_rule(self, url: str) -> list[Any] | None:
        if url not in self._value_sets:
            expansion = expand(self._definitions, url)
            if expansion is None:
                return None
            self._value_sets[url] = len(self.codes)
            self.codes.append(sorted({code for _, code in expansion}))
        return ["c", self._value_sets[url]]

    def _concept_rule(self, url: str) -> list[Any] | None:
        if url not in self._concept_sets:
            expansion = expand(self._definitions, url)
            if expansion is None:
                return None
            self._concept_sets[url] = len(self.concepts)
            systems = sorted({system for system, _ in expansion})
            self.concepts.append({s: sorted(code for system, code in expansion if system == s) for s in systems})
        return ["k", self._concept_sets[url]]


def build(definitions: Definitions) -> dict[str, Any]:
    """Return type → JSON name → rule, and the value sets that the rules name by number.

    A rule is ``[kind, value]``: ``c`` code bound to value set, ``k`` CodeableConcept bound to concepts, ``f``/``g``
    code or concept with a form, ``r`` Reference to these types (empty: any), ``d``/``t``/``i`` date, dateTime,
    instant, ``n`` logical id, ``w`` URI, ``o`` object of a type, ``*`` any resource.
    """
    builder = _Builder(definitions)
    tables = {type_name: builder.table(type_name) for type_name in definitions.elements}
    _prune(tables)
    return {
        "codes": builder.codes,
        "concepts": builder.concepts,
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


def expand(definitions: Definitions, url: str) -> set[tuple[str, str]] | None:
    """(system, code) of a value set, or None when it is not enumerable here (filters, external systems)."""
    value_set = definitions.value_sets.get(url)
    if value_set is None or "exclude" in value_set.get("compose", {}):
        return None
    found: set[tuple[str, str]] = set()
    for include in value_set.get("compose", {}).get("include", []):
        if include.get("filter"):
            return None
        for inner in include.get("valueSet", []):
            part = expand(definitions, inner.split("|")[0])
            if part is None:
                return None
            found |= part
        if "concept" in include:
            found |= {(include["system"], concept["code"]) for concept in include["concept"]}
        elif "system" in include:
            system = definitions.code_systems.get(include["system"])
            if system is None or system.get("content") != "complete":
                return None
            found |= {(include["system"], code) for code in _codes(system.get("concept", []))}
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
