"""Functions that FHIR adds.

https://hl7.org/fhir/R4/fhirpath.html#functions
"""

from __future__ import annotations

from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.functions.registry import eager
from fhir_server.fhirpath.narrative import read_narrative
from fhir_server.fhirpath.node import Node, has_value, step
from fhir_server.fhirpath.references import contained, reference_of
from fhir_server.fhirpath.type_table import is_subtype, resource_types
from fhir_server.fhirpath.values import EMPTY, FALSE, Items, boolean, make, single, system

_STRUCTURES = "http://hl7.org/fhir/StructureDefinition/"


def _url(items: Items, what: str) -> str | None:
    node = single(items, what)
    value = None if node is None else system(node)
    if value is not None and type(value) is not str:
        raise FhirPathError(f"{what} takes a URL")
    return value


@eager("extension", 1)
def _extension(context: Context, items: Items, argument: Items) -> Items:
    url = _url(argument, "extension()")
    found: Items = []
    for node in items:
        step(node, "extension", found)
    context.spend(len(found))
    return [node for node in found if type(node.value) is dict and node.value.get("url") == url]


@eager("hasExtension", 1)
def _has_extension(context: Context, items: Items, argument: Items) -> Items:
    return boolean(bool(_extension(context, items, argument)))


@eager("hasValue")
def _has_value(context: Context, items: Items) -> Items:
    return boolean(len(items) == 1 and has_value(items[0]))


@eager("getValue")
def _get_value(context: Context, items: Items) -> Items:
    if len(items) != 1 or not has_value(items[0]):
        return EMPTY
    return make(system(items[0]))


@eager("resolve")
def _resolve(context: Context, items: Items) -> Items:
    found: Items = []
    context.spend(len(items) * 4)
    for node in items:
        reference = reference_of(node)
        if reference is None:
            continue
        if reference.startswith("#"):
            inner = contained(context.root_resource, reference[1:])
            found += [inner] if inner is not None else []
        elif context.resolve is not None:
            resource = context.resolve(reference)
            found += [Node(resource, str(resource.get("resourceType", "")))] if resource is not None else []
    return found


@eager("memberOf", 1)
def _member_of(context: Context, items: Items, argument: Items) -> Items:
    node, url = single(items, "memberOf()"), _url(argument, "memberOf()")
    if node is None or url is None:
        return EMPTY
    if context.member_of is None:
        raise FhirPathError("memberOf() needs a terminology service here")
    return boolean(context.member_of(node.value, url))


@eager("conformsTo", 1)
def _conforms_to(context: Context, items: Items, argument: Items) -> Items:
    node, url = single(items, "conformsTo()"), _url(argument, "conformsTo()")
    if node is None or url is None:
        return EMPTY
    name = url.removeprefix(_STRUCTURES)
    if name in resource_types() or name in ("Resource", "DomainResource"):
        return boolean(is_subtype(node.type_name, name))
    answer = None if context.conforms_to is None else context.conforms_to(node, url)
    if answer is None:
        raise FhirPathError("conformsTo() does not know this profile")
    return boolean(answer)


@eager("htmlChecks")
def _html_checks(context: Context, items: Items) -> Items:
    node = single(items, "htmlChecks()")
    if node is None:
        return EMPTY
    return boolean(read_narrative(node.value).is_allowed) if type(node.value) is str else FALSE


@eager("htmlChecks2")
def _html_checks_2(context: Context, items: Items) -> Items:
    node = single(items, "htmlChecks2()")
    if node is None:
        return EMPTY
    return boolean(read_narrative(node.value).has_content) if type(node.value) is str else FALSE
