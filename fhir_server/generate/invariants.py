"""Generate `fhir_server/validation/r4_invariants.json`: every constraint of severity error, by type and element.

https://hl7.org/fhir/R4/conformance-rules.html#constraints. A constraint must evaluate to true. Where the text of R4
cannot do that on data that is plainly right, the text of a later release of FHIR (or the same test, written so that
an unknown answer is not a fault) takes its place; `CORRECTED` is the list.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

_FOLDER = "package/dist/fhir/r4/"
_FILES = ("profiles-types.json", "profiles-resources.json")
# The walk itself checks these on every element (ele-1) or knows where they stand (ext-1 on Extension).
_EVERYWHERE = {"ele-1", "ext-1"}
# The package has these of R5; R4 has not.
_NOT_R4 = {("EvidenceVariable.characteristic", "evv-1"), ("SubscriptionStatus", "sst-1")}
_UNKNOWN_IS_NO_FAULT = "iif({0}, false, true)"
CORRECTED = {
    # Empty, not true, without a reference; R5 begins with `reference.exists() implies`.
    ("Reference", "ref-1"): "reference.exists() implies (reference.startsWith('#').not()"
    " or (reference = '#' or reference.substring(1) in %rootResource.contained.id))",
    # Unknown for dates of different precision (2011-05 and 2011-05-23): no fault unless certainly later.
    ("Period", "per-1"): _UNKNOWN_IS_NO_FAULT.format("start.hasValue() and end.hasValue() and start > end"),
    ("Task", "inv-1"): _UNKNOWN_IS_NO_FAULT.format("lastModified < authoredOn"),
    ("MedicationDispense", "mdd-1"): _UNKNOWN_IS_NO_FAULT.format("whenHandedOver < whenPrepared"),
    # Unknown for units that cannot be compared (R5: `comparable(…).not() or`).
    ("Range", "rng-2"): _UNKNOWN_IS_NO_FAULT.format("low > high"),
    # `as` takes one item; R4B and R5 say ofType. The last two branches are the same.
    ("*", "dom-3"): "contained.where((('#'+id in (%resource.descendants().reference"
    " | %resource.descendants().ofType(canonical) | %resource.descendants().ofType(uri)"
    " | %resource.descendants().ofType(url))) or descendants().where(reference = '#').exists()"
    " or descendants().where(ofType(canonical) = '#').exists()).not()).empty()",
    # Empty, not true, without a probability.
    ("RiskAssessment.prediction", "ras-2"): "probability.ofType(decimal).empty() or probability.ofType(decimal) <= 100",
    # R4 gives both texts the same test; R5 has one for each.
    ("Narrative.div", "txt-2"): "htmlChecks2()",
    # System.Boolean is not FHIR.boolean; R5 writes it small.
    ("Questionnaire.item.enableWhen", "que-7"): "operator = 'exists' implies (answer is boolean)",
}


def build(package: Path) -> dict[str, Any]:
    """Return types and elements → list of [key, human text, expression]; ``*`` stands for every DomainResource."""
    types: dict[str, list[list[str]]] = {}
    elements: dict[str, list[list[str]]] = {}
    for structure in _structures(package):
        for element in structure["snapshot"]["element"]:
            path = element["path"]
            kinds = {kind["code"] for kind in element.get("type", [])}
            is_type = "." not in path or kinds & {"BackboneElement", "Element"}
            for constraint in element.get("constraint", []):
                key = constraint["key"]
                if constraint["severity"] != "error" or key in _EVERYWHERE or (path, key) in _NOT_R4:
                    continue
                place = "*" if key.startswith("dom-") else path.removesuffix("[x]")
                rule = [key, constraint["human"], CORRECTED.get((place, key), constraint["expression"])]
                rules = (types if place == "*" or is_type else elements).setdefault(place, [])
                if rule not in rules:
                    rules.append(rule)
    types["Extension"] = [
        ["ext-1", "Must have either extensions or value[x], not both", "extension.exists() != value.exists()"]
    ]
    return {
        "types": {place: types[place] for place in sorted(types)},
        "elements": {place: elements[place] for place in sorted(elements)},
    }


def _structures(package: Path) -> list[dict[str, Any]]:
    found = []
    with tarfile.open(package) as archive:
        for name in _FILES:
            member = archive.extractfile(_FOLDER + name)
            assert member is not None  # noqa: S101 - a part of the package
            found += [entry["resource"] for entry in json.loads(member.read())["entry"]]
    return [
        resource
        for resource in found
        if resource["resourceType"] == "StructureDefinition" and resource.get("derivation") != "constraint"
    ]
