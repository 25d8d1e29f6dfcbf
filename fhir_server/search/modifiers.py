"""Which modifier belongs to which kind of search parameter. https://hl7.org/fhir/R4/search.html#modifiers"""

from __future__ import annotations

import re

from fhir_server.search.parameters import Parameter, resource_types
from foramen.kernel.errors import InvalidRequestError

MODIFIERS: dict[str, frozenset[str]] = {
    "token": frozenset({"missing", "not", "text", "in", "not-in", "above", "below", "of-type"}),
    "string": frozenset({"missing", "exact", "contains"}),
    "reference": frozenset({"missing", "identifier", "above", "below"}),
    "uri": frozenset({"missing", "above", "below"}),
    "date": frozenset({"missing"}),
    "number": frozenset({"missing"}),
    "quantity": frozenset({"missing"}),
    "composite": frozenset(),
    "special": frozenset(),
}
"""Kind → modifiers; a reference may also be modified by the name of a resource type."""


def shown(name: str) -> str:
    """Name of a parameter for a message: letters only, so that no value can slip in."""
    return re.sub(r"[^A-Za-z0-9_:.-]", "", name)[:60]


def refuse(code: str, modifier: str) -> InvalidRequestError:
    """Return the refusal of a modifier where it does not belong."""
    return InvalidRequestError(
        f"{shown(code)} does not support the modifier :{shown(modifier)}",
        issue_code="not-supported",
        expression=(f"http.{shown(code)}",),
    )


def check_modifier(parameter: Parameter, modifier: str | None) -> None:
    """Refuse a modifier that the parameter's kind or data type does not have.

    Raises
    ------
    InvalidRequestError
        Names the parameter.
    """
    if modifier is None:
        return
    allowed = MODIFIERS.get(parameter.kind, frozenset())
    if "Identifier" not in parameter.data_types:
        allowed -= {"of-type"}
    if any(path.endswith("#true") for path in parameter.paths):  # Whether there is an element: true or false.
        allowed &= {"missing", "not"}
    if modifier in allowed:
        return
    if parameter.kind == "reference" and modifier in resource_types():
        return
    raise refuse(parameter.code, modifier)
