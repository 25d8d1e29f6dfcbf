"""Generate `fhir_server/model/r4_structure.json`: every element of every type, in order, with type and cardinality.

https://hl7.org/fhir/R4/formats.html, https://hl7.org/fhir/R4/elementdefinition.html
"""

from __future__ import annotations

from typing import Any

from fhir_server.generate.definitions import Definitions, Element, json_names

_ANY_RESOURCE = {"Resource", "DomainResource"}
_NOT_R4_TYPES = (
    *("MetadataResource", "SubscriptionStatus", "DeviceDefinition.classification", "EvidenceVariable.characteristic."),
    *(
        f"ResearchStudy.{name}"
        for name in ("progressStatus", "associatedParty", "label", "recruitment", "outcomeMeasure", "comparisonGroup")
    ),
)
# The package adds elements of R5 and of its own; R4 has none of these.
_NOT_R4 = {
    "Binary": "url",
    "DeviceDefinition": "classification bodySite",
    "Meta": "project author onBehalfOf account accounts compartment",
    "ObservationDefinition": "publisher",
    "ResearchStudy": "name label studyDesign region descriptionSummary classifier associatedParty progressStatus"
    " whyStopped recruitment comparisonGroup outcomeMeasure result",
    "ResearchStudy.objective": "description",
}
# And it replaces these by their R5 form; here they are as in R4.
_R4 = {
    "EvidenceVariable.characteristic": "id:string@ extension:Extension* modifierExtension:Extension*"
    " description:string definition[x]=definitionReference:Reference|definitionCanonical:canonical"
    "|definitionCodeableConcept:CodeableConcept|definitionExpression:Expression"
    "|definitionDataRequirement:DataRequirement|definitionTriggerDefinition:TriggerDefinition"
    " usageContext:UsageContext* exclude:boolean participantEffective[x]=participantEffectiveDateTime:dateTime"
    "|participantEffectivePeriod:Period|participantEffectiveDuration:Duration|participantEffectiveTiming:Timing"
    " timeFromStart:Duration groupMeasure:code",
}


def build(definitions: Definitions) -> dict[str, Any]:
    """Return type → elements in the order of the definition, as text of ``name:type[*]`` parted by spaces.

    ``*`` marks an element that repeats, ``@`` one that XML writes as an attribute. A choice is written out, each of
    its types with the JSON name: ``value[x]=valueQuantity:Quantity|valueString:string``, and ``value[x]=all`` for all
    types of ``Extension.value[x]``. A type that the element defines itself has the element's path as name
    (``Patient.contact``); any resource has the type ``Resource``.
    """
    primitives = sorted(name for name in definitions.elements if name[0].islower() and "." not in name)
    every = set(definitions.elements["Extension"]["value[x]"].types)
    resources = {*definitions.resource_types, *_ANY_RESOURCE}
    types = {
        name: _R4.get(name) or " ".join(_element(e, name, resources, every) for e in _of_r4(name, elements))
        for name, elements in definitions.elements.items()
        if elements and not name[0].islower() and not name.startswith(_NOT_R4_TYPES)
    }
    choices = [[_suffix(kind), kind] for kind in definitions.elements["Extension"]["value[x]"].types]
    return {"primitives": primitives, "resources": definitions.resource_types, "all": choices, "types": types}


def _of_r4(type_name: str, elements: dict[str, Element]) -> list[Element]:
    left_out = _NOT_R4.get(type_name, "").split()
    return [element for name, element in elements.items() if name.removesuffix("[x]") not in left_out]


def _element(element: Element, type_name: str, resources: set[str], every: set[str]) -> str:
    is_attribute = element.attribute or (element.name == "id" and type_name not in resources)
    marks = ("*" if element.repeats else "") + ("@" if is_attribute else "")
    if element.is_choice and set(element.types) == every:
        return f"{element.name}=all{marks}"
    choice = f"{element.name}=" if element.is_choice else ""
    # R4 has one resource among the types of Bundle.entry.response: any.
    kinds = [f"{name}:{'Resource' if kind in resources else kind}" for name, kind in json_names(element)]
    return choice + "|".join(kinds) + marks


def _suffix(kind: str) -> str:
    return kind[0].upper() + kind[1:]
