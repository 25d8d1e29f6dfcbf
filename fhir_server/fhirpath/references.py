"""What ``resolve()`` looks up.

https://hl7.org/fhir/R4/fhirpath.html#fn-resolve
"""

from __future__ import annotations

import re
from typing import Any

from fhir_server.fhirpath.node import Node, step
from fhir_server.fhirpath.type_table import is_subtype, resource_types

_TYPED = re.compile(r"(?:https?://.*/|)([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")


def reference_of(node: Node) -> str | None:
    """Literal reference of a Reference, uri, canonical or string; None for anything else."""
    value: Any = node.value
    if type(value) is dict:
        value = value.get("reference")
    elif not (is_subtype(node.type_name, "uri") or is_subtype(node.type_name, "string")):
        value = value if node.type_name == "System.String" else None
    return value if type(value) is str and value else None


def contained(root: Node, logical_id: str) -> Node | None:
    """Contained resource with this id; the container itself for ``#``."""
    if not logical_id:
        return root
    found: list[Node] = []
    step(root, "contained", found)
    return next((node for node in found if type(node.value) is dict and node.value.get("id") == logical_id), None)


def stub(reference: str) -> dict[str, Any] | None:
    """Resolver without I/O: a resource with only the type and id that the reference itself names.

    For expressions that ask for the type only (``where(resolve() is Patient)``, as the R4 search parameters do).
    """
    match = _TYPED.fullmatch(reference.partition("#")[0])
    if match is None or match.group(1) not in resource_types():
        return None
    return {"resourceType": match.group(1), "id": match.group(2)}
