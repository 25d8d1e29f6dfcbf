"""Combining collections.

http://hl7.org/fhirpath/N1/#combining
"""

from __future__ import annotations

from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.functions.registry import eager
from fhir_server.fhirpath.operators import distinct
from fhir_server.fhirpath.values import Items, key


@eager("union", 1)
def _union(context: Context, items: Items, other: Items) -> Items:
    return distinct(context, items + other)


@eager("combine", 1)
def _combine(context: Context, items: Items, other: Items) -> Items:
    context.spend(len(items) + len(other))
    return items + other


@eager("intersect", 1)
def _intersect(context: Context, items: Items, other: Items) -> Items:
    context.spend(len(items) + len(other))
    known = {key(node, context.spend) for node in other}
    return distinct(context, [node for node in items if key(node, context.spend) in known])


@eager("exclude", 1)
def _exclude(context: Context, items: Items, other: Items) -> Items:
    context.spend(len(items) + len(other))
    known = {key(node, context.spend) for node in other}
    return [node for node in items if key(node, context.spend) not in known]
