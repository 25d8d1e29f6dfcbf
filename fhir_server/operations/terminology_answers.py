"""Write the answers of the terminology operations: Parameters and the expanded ValueSet. Pure.

https://hl7.org/fhir/R4/terminology-service.html
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from terminology.model import Coding, Expansion, Lookup, Match, Translation, Validation

ECHOED = ("filter", "offset", "count", "activeOnly", "includeDesignations", "displayLanguage", "excludeNested")
_KINDS: dict[type, str] = {bool: "valueBoolean", int: "valueInteger", str: "valueString", float: "valueDecimal"}
Part = dict[str, Any]


def validation_parts(found: Validation) -> list[Part]:
    """Output of `$validate-code`."""
    parts: list[Part] = [{"name": "result", "valueBoolean": bool(found.result)}]
    if found.message:
        parts.append({"name": "message", "valueString": found.message})
    if found.display:
        parts.append({"name": "display", "valueString": found.display})
    return parts


def _property(code: str, key: str, value: Any, description: str = "") -> Part:
    parts: list[Part] = [{"name": "code", "valueCode": code}, {"name": "value", key: value}]
    if description:
        parts.append({"name": "description", "valueString": description})
    return {"name": "property", "part": parts}


def _value(value: Any) -> tuple[str, Any]:
    if isinstance(value, dict):
        return "valueCoding", value
    return _KINDS.get(type(value), "valueString"), value


def lookup_parts(found: Lookup, language: str | None, wanted: Iterable[str]) -> list[Part]:
    """Output of `$lookup`; without `property` everything that is known is told."""
    asked = set(wanted)
    concept = found.concept

    def told(name: str) -> bool:
        return not asked or name in asked

    parts: list[Part] = [{"name": "name", "valueString": found.name}]
    if found.version:
        parts.append({"name": "version", "valueString": found.version})
    parts.append({"name": "display", "valueString": concept.named(language)})
    for item in concept.designations:
        if told("designation") or f"lang.{item.language}" in asked:
            named: list[Part] = [{"name": "language", "valueCode": item.language}] if item.language else []
            use: list[Part] = [{"name": "use", "valueCoding": {"code": item.use}}] if item.use else []
            parts.append({"name": "designation", "part": [*named, *use, {"name": "value", "valueString": item.value}]})
    if concept.definition and told("definition"):
        parts.append(_property("definition", "valueString", concept.definition))
    if told("inactive"):
        parts.append(_property("inactive", "valueBoolean", not concept.active))
    for name, value in concept.properties:
        if name not in ("inactive", "definition") and told(name):
            parts.append(_property(name, *_value(value)))
    for name, relatives in (("parent", found.parents), ("child", found.children)):
        if told(name):
            parts += [_property(name, "valueCode", item.code, item.named(language)) for item in relatives]
    return parts


def expansion(found: Expansion, asked: Iterable[tuple[str, Any]], *, definition: bool) -> dict[str, Any]:
    """Output of `$expand`: the ValueSet with one page of its codes."""
    kept = ("url", "version", "name", "title", "status", "copyright", *(("compose",) if definition else ()))
    parameters = [{"name": name, _value(value)[0]: value} for name, value in asked]
    parameters += [{"name": "version", "valueUri": version} for version in found.versions]
    body: dict[str, Any] = {
        "identifier": f"urn:uuid:{uuid.uuid4()}",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "total": found.total,
        "offset": found.offset,
    }
    if parameters:
        body["parameter"] = parameters
    if found.codes:
        body["contains"] = [_contained(coding) for coding in found.codes]
    named = {name: found.value_set[name] for name in kept if name in found.value_set}
    return {"resourceType": "ValueSet", "status": "active", **named, "expansion": body}


def _contained(coding: Coding) -> Part:
    part: Part = {"system": coding.system}
    if coding.version:
        part["version"] = coding.version
    if coding.inactive:
        part["inactive"] = True
    part["code"] = coding.code
    if coding.display:
        part["display"] = coding.display
    if coding.designations:
        part["designation"] = [item.to_fhir() for item in coding.designations]
    return part


def translation_parts(translations: list[Translation]) -> list[Part]:
    """Output of `$translate`, for all codings asked about together."""
    result = any(item.result for item in translations)
    parts: list[Part] = [{"name": "result", "valueBoolean": result}]
    if not result and translations[0].message:
        parts.append({"name": "message", "valueString": translations[0].message})
    parts += [_match(match) for item in translations for match in item.matches]
    return parts


def _match(match: Match) -> Part:
    inner: list[Part] = [{"name": "equivalence", "valueCode": match.equivalence}]
    if match.coding.code:
        inner.append({"name": "concept", "valueCoding": match.coding.to_fhir()})
    for product in match.products:
        concept = {name: product[name] for name in ("system", "code") if product.get(name)}
        element: list[Part] = [{"name": "element", "valueUri": product["element"]}] if product.get("element") else []
        inner.append({"name": "product", "part": [*element, {"name": "concept", "valueCoding": concept}]})
    if match.source:
        inner.append({"name": "source", "valueUri": match.source})
    return {"name": "match", "part": inner}
