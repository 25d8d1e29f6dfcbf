"""Tree navigation.

http://hl7.org/fhirpath/N1/#tree-navigation
"""

from __future__ import annotations

from fhir_server.fhirpath import node as nodes
from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.functions.registry import eager
from fhir_server.fhirpath.values import Items


@eager("children")
def _children(context: Context, items: Items) -> Items:
    found: Items = []
    for node in items:
        found += nodes.children(node)
    context.spend(len(found))
    return found


@eager("descendants")
def _descendants(context: Context, items: Items) -> Items:
    found: Items = []
    for node in items:
        below = nodes.descendants(node, context.budget)
        context.spend(len(below))
        found += below
    return found
