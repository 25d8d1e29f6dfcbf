"""Generate `fhir_server/search/r4_search_parameters.json`: every R4 search parameter as typed JSON paths.

https://hl7.org/fhir/R4/searchparameter-registry.html
"""

from __future__ import annotations

from typing import Any

from fhir_server.generate.definitions import Definitions
from fhir_server.generate.expressions import Branch, branches_of, split_branches

# In the package but not in R4 (they are back-ports of R5).
_NOT_R4 = {"DetectedIssue-status", "DeviceDefinition-classification", "ServiceRequest-order-detail"}
# The package widens these targets; here they are as in R4.
_R4_TARGETS = {
    "MeasureReport-subject": [
        "Device",
        "Group",
        "Location",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "RelatedPerson",
    ]
}
# In R4 but not in the package: parameters defined over extensions. The rule is type, parameter kind, extension URL.
_SD = "http://hl7.org/fhir/StructureDefinition/"
EXTENSION_PARAMETERS = (
    ("Device", "din", "token", "http://hl7.org/fhir/SearchParameter/device-extensions-Device-din"),
    ("DiagnosticReport", "assessed-condition", "reference", _SD + "DiagnosticReport-geneticsAssessedCondition"),
    ("Observation", "amino-acid-change", "string", _SD + "observation-geneticsAminoAcidChangeName"),
    ("Observation", "dna-variant", "string", _SD + "observation-geneticsDnaVariant"),
    ("Observation", "gene-amino-acid-change", "string", _SD + "observation-geneticsAminoAcidChangeName"),
    ("Observation", "gene-dnavariant", "string", _SD + "observation-geneticsDnaVariant"),
    ("Observation", "gene-identifier", "token", _SD + "observation-geneticsGene"),
    ("Patient", "mothersMaidenName", "string", _SD + "patient-extensions-Patient-mothersMaidenName"),
)
# The same, with a path of its own below the resource.
PATH_PARAMETERS = (
    ("Patient", "birthOrderBoolean", "token", "multipleBirth.exists() and Patient.multipleBirth != false"),
    *(
        (name, code, kind, f"extension('{_SD}{name.lower()}-{extension}'){more}")
        for name, author in (("CodeSystem", ""), ("ValueSet", ".as(ContactDetail).name"))
        for code, kind, extension, more in (
            ("author", "string", "author", author),
            ("effective", "date", "effectiveDate", ""),
            ("end", "date", "expirationDate", ""),
            ("keyword", "string", "keyWord", ""),
            ("workflow", "token", "workflowStatus", ""),
        )
    ),
)
# Computed when asked, from what other parameters index.
_COMPUTED = (("Location", "near", "special"), ("Patient", "age", "number"))
_ANY_TYPE = 100
_ITEM_SUBJECT = "QuestionnaireResponse.item.where(hasExtension('{}')).answer.value.ofType(Reference)"
# Answered from the resource row itself, or not indexable at all (specials without an expression).
_ELSEWHERE = {"_id", "_lastUpdated", "_text", "_content", "_query", "_filter", "_list", "_has", "_type"}
# The element whose value orders a type's resources in time: the first parameter of these that the type has.
MAIN_DATES = (
    *("date", "started", "authored", "authored-on", "authoredon", "recorded", "onset-date", "effective-time", "issued"),
    *("occurrence", "created", "period", "sent", "when-given", "whenprepared", "relevant-date", "received"),
)


def build(definitions: Definitions) -> dict[str, Any]:
    """Return types → parameters and typed paths."""
    types: dict[str, Any] = {name: {"parameters": {}, "paths": {}} for name in definitions.resource_types}
    parameters = [item for item in definitions.search_parameters if item["id"] not in _NOT_R4]
    by_url = {item["url"]: item for item in parameters}
    composites = []
    for item in parameters:
        if item["type"] == "composite":
            composites.append(item)
        elif item["code"] not in _ELSEWHERE and item["type"] != "special" and item.get("expression"):
            _add_parameter(definitions, types, item)
    for resource_type, code, kind, url in EXTENSION_PARAMETERS:
        found = branches_of(definitions, resource_type, f".extension('{url}')", kind)
        _add(types[resource_type], code, kind, found, [])
    item_subject = branches_of(
        definitions,
        "QuestionnaireResponse",
        _ITEM_SUBJECT.format(_SD + "questionnaireresponse-isSubject").partition(".")[2],
        "reference",
    )
    _add(types["QuestionnaireResponse"], "item-subject", "reference", item_subject, [])
    for item in composites:
        _add_composite(definitions, types, item, by_url)
    for resource_type, code, kind, path in PATH_PARAMETERS:
        _add(types[resource_type], code, kind, branches_of(definitions, resource_type, path, kind), [])
    for resource_type, code, kind in _COMPUTED:
        types[resource_type]["parameters"][code] = {"type": kind}
    for entry in types.values():
        dates = (code for code in MAIN_DATES if entry["parameters"].get(code, {}).get("type") == "date")
        entry["main_date"] = next(dates, None)
    return types


def _bases(item: dict[str, Any], types: dict[str, Any]) -> list[str]:
    if item["base"] in (["Resource"], ["DomainResource"]):
        return list(types)
    return [base for base in item["base"] if base in types]


def _add_parameter(definitions: Definitions, types: dict[str, Any], item: dict[str, Any]) -> None:
    for resource_type in _bases(item, types):
        found: list[Branch] = []
        for text in split_branches(item["expression"]):
            root, _, path = text.partition(".")
            if root[0].islower():  # InsurancePlan.name is written without its type in R4.
                root, path = resource_type, text
            if root in (resource_type, "Resource", "DomainResource"):
                found += branches_of(definitions, resource_type, path, item["type"])
        if not found:
            raise ValueError(f"{item['id']} has no path for {resource_type}")
        targets = _R4_TARGETS.get(item["id"], item.get("target", []))
        _add(types[resource_type], item["code"], item["type"], found, targets)


def _add(entry: dict[str, Any], code: str, kind: str, branches: list[Branch], targets: list[str]) -> None:
    filters = {branch.target for branch in branches}
    if None not in filters:
        targets = sorted(str(target) for target in filters)
    parameter: dict[str, Any] = {"type": kind, "paths": sorted({branch.identity for branch in branches})}
    if kind == "reference":
        # An empty list stands for "any resource type", which the definitions spell out one by one.
        parameter["targets"] = [] if len(targets) >= _ANY_TYPE else sorted(targets)
    entry["parameters"][code] = parameter
    table = entry["paths"].setdefault(kind, {})
    for branch in branches:
        leaves = table.setdefault(branch.identity, [])
        if [branch.path, branch.data_type] not in leaves:
            leaves.append([branch.path, branch.data_type])


def _add_composite(
    definitions: Definitions, types: dict[str, Any], item: dict[str, Any], by_url: dict[str, dict[str, Any]]
) -> None:
    kinds = [by_url[component["definition"]]["type"] for component in item["component"]]
    if item["code"] == "relationship" and item["base"] == ["DocumentReference"]:
        kinds.reverse()  # R4 names the two definitions in the wrong order; the expressions decide.
    for resource_type in _bases(item, types):
        groups = []
        for text in split_branches(item["expression"]):
            root, _, path = text.partition(".")
            if root != resource_type:
                continue
            groups.append(_composite_group(definitions, resource_type, path, item, kinds))
        types[resource_type]["parameters"][item["code"]] = {"type": "composite", "kinds": kinds, "groups": groups}


def _composite_group(
    definitions: Definitions, resource_type: str, path: str, item: dict[str, Any], kinds: list[str]
) -> dict[str, Any]:
    base_type = resource_type
    for name in path.split(".") if path else []:
        base_type = definitions.elements[base_type][name].types[0]
    parts = []
    for component, kind in zip(item["component"], kinds, strict=True):
        leaves = []
        for text in split_branches(component["expression"]):
            from_root = text.startswith("%resource.")
            relative = text.removeprefix("%resource.")
            root = resource_type if from_root else base_type
            for branch in branches_of(definitions, root, relative, kind):
                leaves.append([("/" if from_root else "") + branch.path, branch.data_type])
        parts.append(leaves)
    return {"base": path, "parts": parts}
