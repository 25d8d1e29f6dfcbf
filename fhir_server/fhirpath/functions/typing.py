"""``is()``, ``as()``, ``ofType()`` and ``type()``.

http://hl7.org/fhirpath/N1/#types-and-reflection
"""

from __future__ import annotations

from collections.abc import Callable

from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.functions.registry import eager, special
from fhir_server.fhirpath.node import Node
from fhir_server.fhirpath.parser import type_specifier
from fhir_server.fhirpath.syntax import Call
from fhir_server.fhirpath.type_tests import check_type, type_info, type_test
from fhir_server.fhirpath.values import Items


def _register(name: str) -> None:
    @special(name, 1)
    def _compile(call: Call, depth: int) -> Callable[[Context, Items, Items], Items]:
        namespace, type_name = type_specifier(call.arguments[0])
        check_type(namespace, type_name, call.position)
        apply = type_test(name, namespace, type_name)
        return lambda context, items, this: apply(context, items)


for _name in ("is", "as", "ofType"):
    _register(_name)


@eager("type")
def _type(context: Context, items: Items) -> Items:
    return [Node(dict(zip(("namespace", "name"), type_info(node), strict=True)), "") for node in items]
