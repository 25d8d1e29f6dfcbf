"""Is there something, and is it true.

http://hl7.org/fhirpath/N1/#existence
"""

from __future__ import annotations

from fhir_server.fhirpath.compiler import Run
from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.functions.registry import each, eager, lazy
from fhir_server.fhirpath.operators import distinct, truth
from fhir_server.fhirpath.values import FALSE, TRUE, Items, boolean, key, make


@eager("empty")
def _empty(context: Context, items: Items) -> Items:
    return FALSE if items else TRUE


@lazy("exists", 0, 1)
def _exists(context: Context, items: Items, criterion: Run | None = None) -> Items:
    if criterion is None:
        return TRUE if items else FALSE
    return boolean(any(truth(criterion(context, [node])) for node in each(context, items)))


@lazy("all", 1)
def _all(context: Context, items: Items, criterion: Run) -> Items:
    return boolean(all(truth(criterion(context, [node])) for node in each(context, items)))


@eager("not")
def _not(context: Context, items: Items) -> Items:
    value = truth(items, "not()")
    return boolean(None if value is None else not value)


def _booleans(items: Items, what: str) -> list[bool]:
    if not all(type(node.value) is bool for node in items):
        raise FhirPathError(f"{what}() takes booleans")
    return [node.value for node in items]


@eager("allTrue")
def _all_true(context: Context, items: Items) -> Items:
    return boolean(all(_booleans(items, "allTrue")))


@eager("anyTrue")
def _any_true(context: Context, items: Items) -> Items:
    return boolean(any(_booleans(items, "anyTrue")))


@eager("allFalse")
def _all_false(context: Context, items: Items) -> Items:
    return boolean(not any(_booleans(items, "allFalse")))


@eager("anyFalse")
def _any_false(context: Context, items: Items) -> Items:
    return boolean(not all(_booleans(items, "anyFalse")))


@eager("subsetOf", 1)
def _subset_of(context: Context, items: Items, other: Items) -> Items:
    context.spend(len(items) + len(other))
    known = {key(node, context.spend) for node in other}
    return boolean(all(key(node, context.spend) in known for node in items))


@eager("supersetOf", 1)
def _superset_of(context: Context, items: Items, other: Items) -> Items:
    return _subset_of(context, other, items)


@eager("count")
def _count(context: Context, items: Items) -> Items:
    return make(len(items))


@eager("distinct")
def _distinct(context: Context, items: Items) -> Items:
    return distinct(context, items)


@eager("isDistinct")
def _is_distinct(context: Context, items: Items) -> Items:
    return boolean(len(distinct(context, items)) == len(items))
