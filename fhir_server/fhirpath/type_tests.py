"""``is``, ``as``, ``ofType()`` and ``type()``.

http://hl7.org/fhirpath/N1/#types, https://hl7.org/fhir/R4/fhirpath.html#types
"""

from __future__ import annotations

from collections.abc import Callable

from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.errors import FhirPathError
from fhir_server.fhirpath.node import Node
from fhir_server.fhirpath.type_table import SYSTEM_TYPES, base_of, is_known, is_subtype, primitives
from fhir_server.fhirpath.values import EMPTY, Items, boolean, single


def check_type(namespace: str, name: str, position: int) -> None:
    """Refuse the name of a type that does not exist.

    Raises
    ------
    FhirPathError
        Neither a FHIR R4 nor a System type.
    """
    if namespace not in ("", "FHIR", "System"):
        raise FhirPathError("there is no such namespace of types", position)
    if namespace == "" and not is_known(name) and name not in SYSTEM_TYPES:
        raise FhirPathError(f"there is no type {name[:60]}", position)


def matcher(namespace: str, name: str, *, exact_primitives: bool) -> Callable[[Node], bool]:
    """Return the test whether an item has a type; without a namespace FHIR is looked at first, then System.

    `exact_primitives`: ``as`` and ``ofType`` do not take a code for a string (official suite,
    testFHIRPathAsFunction11 and 16), while ``is`` does.
    """
    names = [] if namespace == "System" else [name]
    if namespace == "System" or (namespace == "" and name in SYSTEM_TYPES):
        names.append(f"System.{name}")
    if exact_primitives and name in primitives():
        return lambda node: node.type_name == name
    if len(names) == 1:
        return lambda node: is_subtype(node.type_name, names[0])
    return lambda node: any(is_subtype(node.type_name, one) for one in names)


def type_test(operator: str, namespace: str, name: str) -> Callable[[Context, Items], Items]:
    """Return the operation ``is``, ``as`` or ``ofType`` for one type."""
    matches = matcher(namespace, name, exact_primitives=operator != "is")

    def is_type(context: Context, items: Items) -> Items:
        node = single(items, "is")
        return EMPTY if node is None else boolean(matches(node))

    def of_type(context: Context, items: Items) -> Items:
        # N1 allows one item only; the search parameters of R4 rely on `as` to filter collections.
        if operator == "as" and context.strict:
            single(items, "as")
        return [node for node in items if matches(node)]

    return is_type if operator == "is" else of_type


def type_info(node: Node) -> tuple[str, str]:
    """Namespace and name of an item's type."""
    if node.type_name.startswith("System."):
        return "System", node.type_name.removeprefix("System.")
    if "." in node.type_name:
        return "FHIR", base_of(node.type_name) or node.type_name
    return "FHIR", node.type_name
